//! The rules of the carrier: what becomes of a key, told by the keys before it. Pure; a verdict is for ever.

use std::collections::HashMap;

use contracts::sandbox::v1::Behaviour;
use serde::{Deserialize, Serialize};

use crate::dice;
use crate::ledger::{Decision, Entry, Index};

/// What became of an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// On its way until `arrives_ms` (Unix milliseconds), then delivered.
    Booked {
        arrives_ms: i64,
    },
    Refused,
    Voided,
}

/// Every key that the carrier has heard of.
#[derive(Default)]
pub(crate) struct Bookings {
    verdicts: HashMap<String, Verdict>,
}

impl Bookings {
    /// Takes a parcel once per key, unless the key is among those that are refused.
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
        Decision::New(if dice::picks(seed, key, refuse_percent) {
            Verdict::Refused
        } else {
            Verdict::Booked {
                arrives_ms: now_ms + i64::from(delivery_ms),
            }
        })
    }

    /// Bars a key that nothing has become of; else tells what has.
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
            Self::Booked { .. } => dice::reference("OM", key),
            Self::Refused | Self::Voided => String::new(),
        }
    }

    /// Why there is no parcel; empty when there is one, or when nobody asked.
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

    const YES: Behaviour = Behaviour {
        decline_percent: 0,
        refuse_percent: 0,
        seed: 0,
        delivery_ms: 200,
        refund_refuse_percent: 0,
        provider: None,
        carrier: None,
    };
    const NO: Behaviour = Behaviour {
        refuse_percent: 100,
        ..YES
    };

    fn given(key: &str, verdict: Verdict) -> Bookings {
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
            Bookings::default().book("b", YES, 1000),
            Decision::New(booked)
        );
        assert_eq!(
            Bookings::default().book("b", NO, 1000),
            Decision::New(Verdict::Refused)
        );
        for verdict in [booked, Verdict::Refused, Verdict::Voided] {
            let bookings = given("b", verdict);
            for behaviour in [YES, NO] {
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
