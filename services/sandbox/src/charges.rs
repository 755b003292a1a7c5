//! The rules of the payment provider: the verdict on a key, given the verdicts on earlier keys. Pure; a verdict is
//! final.

use std::collections::{HashMap, HashSet};

use contracts::core::v1::Money;
use contracts::sandbox::v1::Behaviour;
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::derived;
use crate::ledger::{Decision, Entry, Index};

/// The result of a request under an idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Verdict {
    Charged(Charge),
    Declined(Charge),
    Voided,
    Refunded(Refund),
    RefundRefused {
        #[serde(flatten)]
        refund: Refund,
        reason: RefundRefusal,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) minor_units: i64,
    pub(crate) currency: String,
    pub(crate) customer_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub(crate) charge_key: String,
    pub(crate) minor_units: i64,
    pub(crate) currency: String,
}

/// Why a refund is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundRefusal {
    NotCharged,
    AlreadyRefunded,
    AnotherAmount,
    Declined,
}

impl RefundRefusal {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NotCharged => "the charge's key has taken no money",
            Self::AlreadyRefunded => "the charge was refunded under another key",
            Self::AnotherAmount => "the amount is not the charge's",
            Self::Declined => "declined by the customer's bank",
        }
    }
}

/// The key was used for another request before. This is a mistake of the caller and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the idempotency key was used for another request")]
pub(crate) struct KeyReused;

/// The verdicts on all keys of the provider.
#[derive(Default)]
pub(crate) struct Charges {
    verdicts: HashMap<String, Verdict>,
    /// Keys of the refunded charges.
    refunded: HashSet<String>,
}

impl Charges {
    /// Charges once per key, unless the customer is among those that are declined.
    pub(crate) fn charge(
        &self,
        key: &str,
        charge: Charge,
        behaviour: Behaviour,
    ) -> Result<Decision<Verdict>, KeyReused> {
        match self.verdict(key) {
            Some(verdict @ Verdict::Voided) => Ok(Decision::Known(verdict.clone())),
            Some(verdict @ (Verdict::Charged(known) | Verdict::Declined(known)))
                if *known == charge =>
            {
                Ok(Decision::Known(verdict.clone()))
            }
            Some(_) => Err(KeyReused),
            None => {
                let Behaviour {
                    seed,
                    decline_percent,
                    ..
                } = behaviour;
                let declined = derived::is_selected(seed, &charge.customer_id, decline_percent);
                let verdict = if declined {
                    Verdict::Declined
                } else {
                    Verdict::Charged
                };
                Ok(Decision::New(verdict(charge)))
            }
        }
    }

    /// Voids an unused key, so that no later charge can use it; otherwise returns the known verdict.
    pub(crate) fn void(&self, key: &str) -> Result<Decision<Verdict>, KeyReused> {
        match self.verdict(key) {
            Some(Verdict::Refunded(_) | Verdict::RefundRefused { .. }) => Err(KeyReused),
            Some(verdict) => Ok(Decision::Known(verdict.clone())),
            None => Ok(Decision::New(Verdict::Voided)),
        }
    }

    /// Refunds a charge in full, once, unless the key is among those that are refused.
    pub(crate) fn refund(
        &self,
        key: &str,
        refund: Refund,
        behaviour: Behaviour,
    ) -> Result<Decision<Verdict>, KeyReused> {
        match self.verdict(key) {
            Some(
                verdict @ (Verdict::Refunded(known) | Verdict::RefundRefused { refund: known, .. }),
            ) if *known == refund => Ok(Decision::Known(verdict.clone())),
            Some(_) => Err(KeyReused),
            None => Ok(Decision::New(match self.refusal(key, &refund, behaviour) {
                Some(reason) => Verdict::RefundRefused { refund, reason },
                None => Verdict::Refunded(refund),
            })),
        }
    }

    fn refusal(&self, key: &str, refund: &Refund, behaviour: Behaviour) -> Option<RefundRefusal> {
        let Some(Verdict::Charged(charge)) = self.verdict(&refund.charge_key) else {
            return Some(RefundRefusal::NotCharged);
        };
        if self.refunded.contains(&refund.charge_key) {
            Some(RefundRefusal::AlreadyRefunded)
        } else if (charge.minor_units, &charge.currency) != (refund.minor_units, &refund.currency) {
            Some(RefundRefusal::AnotherAmount)
        } else if derived::is_selected(behaviour.seed, key, behaviour.refund_refuse_percent) {
            Some(RefundRefusal::Declined)
        } else {
            None
        }
    }
}

impl Index for Charges {
    type Verdict = Verdict;

    fn verdict(&self, key: &str) -> Option<&Verdict> {
        self.verdicts.get(key)
    }

    fn apply(&mut self, entry: Entry<Verdict>) {
        if let Verdict::Refunded(refund) = &entry.verdict {
            self.refunded.insert(refund.charge_key.clone());
        }
        self.verdicts.insert(entry.key, entry.verdict);
    }
}

impl Verdict {
    /// The verdict's name in the contract.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Verdict::Charged(_) => "charged",
            Verdict::Declined(_) => "declined",
            Verdict::Voided => "voided",
            Verdict::Refunded(_) => "refunded",
            Verdict::RefundRefused { .. } => "refund_refused",
        }
    }

    /// The requested amount; `None` for a void.
    pub(crate) fn amount(&self) -> Option<Money> {
        let (minor_units, currency) = match self {
            Self::Charged(charge) | Self::Declined(charge) => {
                (charge.minor_units, &charge.currency)
            }
            Self::Refunded(refund) | Self::RefundRefused { refund, .. } => {
                (refund.minor_units, &refund.currency)
            }
            Self::Voided => return None,
        };
        Some(Money {
            minor_units,
            currency: currency.clone(),
        })
    }

    /// The provider's reference for the transfer under `key`; empty when no money was moved.
    pub(crate) fn reference(&self, key: &str) -> String {
        match self {
            Self::Charged(_) => derived::reference("ch_", key),
            Self::Refunded(_) => derived::reference("re_", key),
            Self::Declined(_) | Self::Voided | Self::RefundRefused { .. } => String::new(),
        }
    }

    /// Why a charge or refund was refused; empty otherwise.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Declined(_) => "declined by the customer's bank",
            Self::RefundRefused { reason, .. } => reason.text(),
            Self::Charged(_) | Self::Voided | Self::Refunded(_) => "",
        }
    }
}

impl From<KeyReused> for Status {
    fn from(reused: KeyReused) -> Self {
        Self::invalid_argument(reused.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: Behaviour = Behaviour {
        decline_percent: 0,
        refuse_percent: 0,
        seed: 0,
        delivery_ms: 0,
        refund_refuse_percent: 0,
        provider: None,
        carrier: None,
    };
    const REFUSE: Behaviour = Behaviour {
        decline_percent: 100,
        refund_refuse_percent: 100,
        ..ACCEPT
    };

    fn charge_of(minor_units: i64) -> Charge {
        Charge {
            minor_units,
            currency: "EUR".into(),
            customer_id: "ada".into(),
        }
    }

    fn refund_of(charge_key: &str, minor_units: i64) -> Refund {
        Refund {
            charge_key: charge_key.into(),
            minor_units,
            currency: "EUR".into(),
        }
    }

    fn with_entries(entries: &[(&str, Verdict)]) -> Charges {
        let mut charges = Charges::default();
        for (key, verdict) in entries {
            charges.apply(Entry {
                key: (*key).into(),
                time_ms: 0,
                verdict: verdict.clone(),
            });
        }
        charges
    }

    #[test]
    fn a_charge_is_decided_once() {
        let new = Charges::default().charge("c", charge_of(5), REFUSE);
        assert_eq!(new, Ok(Decision::New(Verdict::Declined(charge_of(5)))));

        let charges = with_entries(&[("c", Verdict::Charged(charge_of(5)))]);
        let known = Decision::Known(Verdict::Charged(charge_of(5)));
        assert_eq!(charges.charge("c", charge_of(5), REFUSE), Ok(known.clone()));
        assert_eq!(charges.void("c"), Ok(known));
        assert_eq!(charges.charge("c", charge_of(6), ACCEPT), Err(KeyReused));
        let bob = Charge {
            customer_id: "bob".into(),
            ..charge_of(5)
        };
        assert_eq!(charges.charge("c", bob, ACCEPT), Err(KeyReused));
        assert_eq!(
            charges.refund("c", refund_of("c", 5), ACCEPT),
            Err(KeyReused)
        );
    }

    #[test]
    fn a_void_is_permanent() {
        assert_eq!(
            Charges::default().void("c"),
            Ok(Decision::New(Verdict::Voided))
        );
        let charges = with_entries(&[("c", Verdict::Voided)]);
        assert_eq!(
            charges.charge("c", charge_of(5), ACCEPT),
            Ok(Decision::Known(Verdict::Voided))
        );
        assert_eq!(charges.void("c"), Ok(Decision::Known(Verdict::Voided)));
    }

    #[test]
    fn a_charge_is_refunded_in_full_and_once() {
        let charges = with_entries(&[
            ("c", Verdict::Charged(charge_of(5))),
            ("d", Verdict::Declined(charge_of(5))),
        ]);
        let refused = |refund, reason| Ok(Decision::New(Verdict::RefundRefused { refund, reason }));
        assert_eq!(
            charges.refund("r", refund_of("c", 4), ACCEPT),
            refused(refund_of("c", 4), RefundRefusal::AnotherAmount)
        );
        for no_charge in ["d", "unknown"] {
            assert_eq!(
                charges.refund("r", refund_of(no_charge, 5), ACCEPT),
                refused(refund_of(no_charge, 5), RefundRefusal::NotCharged)
            );
        }
        assert_eq!(
            charges.refund("r", refund_of("c", 5), REFUSE),
            refused(refund_of("c", 5), RefundRefusal::Declined)
        );
        let refunded = Verdict::Refunded(refund_of("c", 5));
        assert_eq!(
            charges.refund("r", refund_of("c", 5), ACCEPT),
            Ok(Decision::New(refunded.clone()))
        );

        let charges = with_entries(&[
            ("c", Verdict::Charged(charge_of(5))),
            ("r", refunded.clone()),
        ]);
        assert_eq!(
            charges.refund("r", refund_of("c", 5), REFUSE),
            Ok(Decision::Known(refunded))
        );
        assert_eq!(
            charges.refund("r2", refund_of("c", 5), ACCEPT),
            refused(refund_of("c", 5), RefundRefusal::AlreadyRefunded)
        );
        assert_eq!(
            charges.refund("r", refund_of("d", 5), ACCEPT),
            Err(KeyReused)
        );
        assert_eq!(charges.void("r"), Err(KeyReused));
    }

    #[test]
    fn an_entry_is_one_readable_line() {
        let refund = refund_of("c", 5);
        let reason = RefundRefusal::NotCharged;
        for (verdict, line) in [
            (
                Verdict::Charged(charge_of(5)),
                r#"{"key":"k","time_ms":3,"kind":"charged","minor_units":5,"currency":"EUR","customer_id":"ada"}"#,
            ),
            (
                Verdict::Voided,
                r#"{"key":"k","time_ms":3,"kind":"voided"}"#,
            ),
            (
                Verdict::RefundRefused { refund, reason },
                r#"{"key":"k","time_ms":3,"kind":"refund_refused","charge_key":"c","minor_units":5,"currency":"EUR","reason":"not_charged"}"#,
            ),
        ] {
            let entry = Entry {
                key: "k".into(),
                time_ms: 3,
                verdict,
            };
            assert_eq!(serde_json::to_string(&entry).expect("it is plain"), line);
            assert_eq!(
                serde_json::from_str::<Entry<Verdict>>(line).expect("it is an entry"),
                entry
            );
            assert!(line.contains(&format!(r#""kind":"{}""#, entry.verdict.kind())));
        }
    }
}
