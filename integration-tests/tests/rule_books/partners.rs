//! A payment provider and a carrier that keep their contract: once per key, and a void is permanent.

use std::collections::BTreeMap;

use contracts::payments::v1::payment_command::Command as PaymentCommand;
use contracts::payments::v1::{
    RecordChargeDeclined, RecordChargeVoided, RecordCharged, RecordRefundRefused, RecordRefunded,
};
use contracts::shipping::v1::shipment_command::Command as ShipmentCommand;
use contracts::shipping::v1::{
    RecordBooked, RecordBookingRefused, RecordBookingVoided, RecordDelivered,
};

/// Final result of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Charged or booked.
    Done,
    /// Declined or refused.
    Refused,
    Voided,
}

/// All keys that the provider has received.
#[derive(Default)]
pub struct Provider {
    /// Results and amounts by key, minor units.
    pub charges: BTreeMap<String, (Verdict, i64)>,
    pub refunds: BTreeMap<String, (Verdict, i64)>,
}

impl Provider {
    /// Executes an effect. `is_good` selects the result if the key is new.
    pub fn carry_out(
        &mut self,
        key: &str,
        effect: &payments::Effect,
        is_good: bool,
    ) -> PaymentCommand {
        match effect {
            payments::Effect::Charge { amount, .. } => {
                let verdict = if is_good {
                    Verdict::Done
                } else {
                    Verdict::Refused
                };
                self.charge(key, verdict, amount.minor_units)
            }
            payments::Effect::Void { charge_key } => self.charge(charge_key, Verdict::Voided, 0),
            payments::Effect::Refund {
                attempt,
                charge_key,
                amount,
            } => {
                let charged = self.charges.get(charge_key).copied();
                assert_eq!(
                    charged,
                    Some((Verdict::Done, amount.minor_units)),
                    "only what was charged is refunded"
                );
                let verdict = if is_good {
                    Verdict::Done
                } else {
                    Verdict::Refused
                };
                let (verdict, _) = *self
                    .refunds
                    .entry(key.to_owned())
                    .or_insert((verdict, amount.minor_units));
                match verdict {
                    Verdict::Done => PaymentCommand::RecordRefunded(RecordRefunded {
                        attempt: *attempt,
                        ..Default::default()
                    }),
                    _ => PaymentCommand::RecordRefundRefused(RecordRefundRefused {
                        attempt: *attempt,
                        ..Default::default()
                    }),
                }
            }
        }
    }

    fn charge(&mut self, key: &str, verdict: Verdict, amount: i64) -> PaymentCommand {
        let (verdict, _) = *self
            .charges
            .entry(key.to_owned())
            .or_insert((verdict, amount));
        let attempt = 1;
        match verdict {
            Verdict::Done => PaymentCommand::RecordCharged(RecordCharged {
                attempt,
                ..Default::default()
            }),
            Verdict::Refused => PaymentCommand::RecordChargeDeclined(RecordChargeDeclined {
                attempt,
                ..Default::default()
            }),
            Verdict::Voided => PaymentCommand::RecordChargeVoided(RecordChargeVoided { attempt }),
        }
    }

    /// Successful charges and successful refunds of an order: count and minor units of each.
    pub fn of_order(&self, order_id: &str) -> [(usize, i64); 2] {
        [&self.charges, &self.refunds].map(|entries| {
            let done = entries.iter().filter(|(key, (verdict, _))| {
                key.split('/').next() == Some(order_id) && *verdict == Verdict::Done
            });
            done.fold((0, 0), |(count, sum), (_, (_, amount))| {
                (count + 1, sum + amount)
            })
        })
    }
}

/// All keys that the carrier has received.
#[derive(Default)]
pub struct Carrier {
    pub bookings: BTreeMap<String, Verdict>,
}

impl Carrier {
    /// Like [`Provider::carry_out`]. A booked parcel is delivered when it is tracked.
    pub fn carry_out(
        &mut self,
        key: &str,
        effect: &shipping::Effect,
        is_good: bool,
    ) -> ShipmentCommand {
        match effect {
            shipping::Effect::Book { .. } => {
                let verdict = if is_good {
                    Verdict::Done
                } else {
                    Verdict::Refused
                };
                self.booking(key, verdict)
            }
            shipping::Effect::Void { booking_key } => self.booking(booking_key, Verdict::Voided),
            shipping::Effect::Track { booking_key } => {
                assert_eq!(self.bookings.get(booking_key), Some(&Verdict::Done));
                ShipmentCommand::RecordDelivered(RecordDelivered {})
            }
        }
    }

    fn booking(&mut self, key: &str, verdict: Verdict) -> ShipmentCommand {
        match *self.bookings.entry(key.to_owned()).or_insert(verdict) {
            Verdict::Done => ShipmentCommand::RecordBooked(RecordBooked {
                tracking_number: "t".into(),
            }),
            Verdict::Refused => {
                ShipmentCommand::RecordBookingRefused(RecordBookingRefused::default())
            }
            Verdict::Voided => ShipmentCommand::RecordBookingVoided(RecordBookingVoided {}),
        }
    }
}
