//! The rules of the carrier: the verdict on a key, given the verdicts on earlier keys. Pure; a verdict is final.

use std::collections::HashMap;

use contracts::sandbox::v1::Behaviour;
use serde::{Deserialize, Serialize};

use crate::derived;
use crate::ledger::{Decision, Entry, Index};

/// The result of a request under an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// In transit until `arrives_ms` (Unix milliseconds), then delivered.
    Booked {
        arrives_ms: i64,
    },
    Refused,
    Voided,
}

/// The verdicts on all keys of the carrier.
#[derive(Default)]
pub(crate) struct Bookings {
    verdicts: HashMap<String, Verdict>,
}

impl Bookings {
    /// Books a parcel once per key, unless the key is among those that are refused.
    pub(crate) fn book(&self, key: &str, behaviour: Behaviour, now_ms: i64) -> Decision<Verdict> {
        if let Some(verdict) = self.verdict(key) {
            return Decision::Known(*verdict);
        }
        let Behaviour {
            seed,
            refuse_percent,
            delivery_ms,
            ..
        } = behaviour;
        Decision::New(if derived::is_selected(seed, key, refuse_percent) {
            Verdict::Refused
        } else {
            Verdict::Booked {
                arrives_ms: now_ms + i64::from(delivery_ms),
            }
        })
    }

    /// Voids an unused key, so that no later booking can use it; otherwise returns the known verdict.
    pub(crate) fn void(&self, key: &str) -> Decision<Verdict> {
        match self.verdict(key) {
            Some(verdict) => Decision::Known(*verdict),
            None => Decision::New(Verdict::Voided),
        }
    }
}

impl Index for Bookings {
    type Verdict = Verdict;

    fn verdict(&self, key: &str) -> Option<&Verdict> {
        self.verdicts.get(key)
    }

    fn apply(&mut self, entry: Entry<Verdict>) {
        self.verdicts.insert(entry.key, entry.verdict);
    }
}

impl Verdict {
    /// The verdict's name in the contract.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Booked { .. } => "booked",
            Self::Refused => "refused",
            Self::Voided => "voided",
        }
    }

    /// The parcel's tracking number; empty when there is no parcel.
    pub(crate) fn tracking_number(self, key: &str) -> String {
        match self {
            Self::Booked { .. } => derived::reference("OM", key),
            Self::Refused | Self::Voided => String::new(),
        }
    }

    /// Why a booking was refused; empty otherwise.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Refused => "the carrier does not deliver there",
            Self::Booked { .. } | Self::Voided => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: Behaviour = Behaviour {
        decline_percent: 0,
        refuse_percent: 0,
        seed: 0,
        delivery_ms: 200,
        refund_refuse_percent: 0,
        provider: None,
        carrier: None,
    };
    const REFUSE: Behaviour = Behaviour {
        refuse_percent: 100,
        ..ACCEPT
    };

    fn with_entry(key: &str, verdict: Verdict) -> Bookings {
        let mut bookings = Bookings::default();
        bookings.apply(Entry {
            key: key.into(),
            time_ms: 0,
            verdict,
        });
        bookings
    }

    #[test]
    fn a_booking_is_decided_once() {
        let booked = Verdict::Booked { arrives_ms: 1200 };
        assert_eq!(
            Bookings::default().book("b", ACCEPT, 1000),
            Decision::New(booked)
        );
        assert_eq!(
            Bookings::default().book("b", REFUSE, 1000),
            Decision::New(Verdict::Refused)
        );
        for verdict in [booked, Verdict::Refused, Verdict::Voided] {
            let bookings = with_entry("b", verdict);
            for behaviour in [ACCEPT, REFUSE] {
                assert_eq!(
                    bookings.book("b", behaviour, 9000),
                    Decision::Known(verdict)
                );
            }
            assert_eq!(bookings.void("b"), Decision::Known(verdict));
        }
        assert_eq!(
            Bookings::default().void("b"),
            Decision::New(Verdict::Voided)
        );
    }

    #[test]
    fn an_entry_is_one_readable_line() {
        let entry = Entry {
            key: "k".into(),
            time_ms: 3,
            verdict: Verdict::Booked { arrives_ms: 7 },
        };
        let line = r#"{"key":"k","time_ms":3,"kind":"booked","arrives_ms":7}"#;
        assert_eq!(serde_json::to_string(&entry).expect("it is plain"), line);
        assert_eq!(
            serde_json::from_str::<Entry<Verdict>>(line).expect("it is an entry"),
            entry
        );
    }
}
