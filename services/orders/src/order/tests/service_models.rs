//! Models of inventory, payments and shipping. They answer as those services do, and panic on a command that an order
//! must not send.

use std::collections::{BTreeMap, BTreeSet};

use contracts::Body as _;
use contracts::inventory::v1::stock_command;
use contracts::orders::v1::{EndReason, OrderStatus};
use contracts::payments::v1::payment_command;
use contracts::shipping::v1::shipment_command;

use super::fixtures::*;
use super::properties::OrderModel;
use super::{Command, Order};

pub(super) struct StockModel {
    received: u64,
    on_hand: u64,
    deducted: u64,
    reserved: BTreeMap<String, u64>,
    /// The commands of each order, to detect repeated and contradictory ones.
    requested: BTreeSet<(String, &'static str)>,
}

impl StockModel {
    pub(super) fn with_pieces(pieces: u64) -> Self {
        Self {
            received: pieces,
            on_hand: pieces,
            deducted: 0,
            reserved: BTreeMap::new(),
            requested: BTreeSet::new(),
        }
    }

    pub(super) fn decide(
        &mut self,
        OrderModel { id, order, .. }: &OrderModel,
        sku: &str,
        command: &stock_command::Command,
    ) -> Option<Command> {
        let kind = command.kind();
        assert!(
            self.requested.insert((id.clone(), kind)),
            "{kind} of {sku} was requested twice"
        );
        let was_requested = |kind| self.requested.contains(&(id.clone(), kind));
        assert!(
            !(was_requested("release_stock") && was_requested("commit_stock")),
            "{sku} was released and committed"
        );
        match command {
            stock_command::Command::ReserveStock(reserve) => {
                assert!(
                    !was_requested("release_stock"),
                    "a release precedes its reservation"
                );
                let available = self.on_hand - self.reserved.values().sum::<u64>();
                if available < reserve.quantity.into() {
                    return Some(stock_refused(sku));
                }
                self.reserved.insert(id.clone(), reserve.quantity.into());
                Some(stock_reserved(sku))
            }
            stock_command::Command::ReleaseStock(_) => {
                assert_ne!(
                    order.goal(),
                    EndReason::Unspecified,
                    "{sku} was released without a reason"
                );
                self.reserved.remove(id);
                Some(stock_released(sku))
            }
            stock_command::Command::CommitStock(_) => {
                let is_shipped = matches!(
                    order.status(),
                    OrderStatus::Shipped | OrderStatus::Delivered
                );
                assert!(is_shipped, "{sku} was committed when {:?}", order.status());
                let quantity = self
                    .reserved
                    .remove(id)
                    .expect("only what is reserved is committed");
                self.on_hand -= quantity;
                self.deducted += quantity;
                None
            }
            stock_command::Command::AdjustStock(_) => panic!("an order adjusts no stock"),
        }
    }

    pub(super) fn check_final_state(&self) {
        assert_eq!(
            self.reserved,
            BTreeMap::new(),
            "something is still reserved"
        );
        assert_eq!(self.on_hand + self.deducted, self.received);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PaymentModel {
    Unknown,
    Requested { cancel: bool },
    Processed,
    Declined,
    Voided,
    Refunded,
    Settled,
}

impl PaymentModel {
    pub(super) fn decide(
        &mut self,
        order: &Order,
        command: &payment_command::Command,
    ) -> Option<Command> {
        use payment_command::Command::{CancelPayment, ChargePayment, SettlePayment};
        match (command, *self) {
            (ChargePayment(charge), Self::Unknown) => {
                let charged = charge.amount.as_ref().map(|amount| amount.minor_units);
                assert_eq!(charged, Some(order.total));
                *self = Self::Requested { cancel: false };
                None
            }
            (SettlePayment(_), Self::Processed) => {
                *self = Self::Settled;
                None
            }
            (CancelPayment(_), Self::Requested { cancel: false }) => {
                *self = Self::Requested { cancel: true };
                None
            }
            (CancelPayment(_), Self::Processed) => {
                *self = Self::Refunded;
                Some(payment_cancelled(order.total))
            }
            (CancelPayment(_), Self::Declined) => Some(payment_cancelled(0)),
            (command, payment) => {
                panic!("{command:?} is invalid for a payment that is {payment:?}")
            }
        }
    }

    /// The provider's answer to a charge. A charge that is being cancelled is refunded or voided.
    pub(super) fn provider_decides(&mut self, order: &Order, charges: bool) -> Command {
        let is_cancelled = *self == Self::Requested { cancel: true };
        let (payment, answer) = match (is_cancelled, charges) {
            (false, true) => (Self::Processed, payment_processed()),
            (false, false) => (Self::Declined, payment_declined()),
            (true, true) => (Self::Refunded, payment_cancelled(order.total)),
            (true, false) => (Self::Voided, payment_cancelled(0)),
        };
        *self = payment;
        answer
    }

    /// Checks that the payment matches the final status of the order.
    pub(super) fn check_final_state(self, order: &Order) {
        let fits = match (order.status(), self) {
            (OrderStatus::Delivered, Self::Unknown) => order.total == 0,
            (OrderStatus::Delivered, payment) => payment == Self::Settled,
            (_, Self::Unknown | Self::Declined | Self::Voided) => order.refunded == 0,
            (_, Self::Refunded) => order.refunded == order.total,
            (_, Self::Requested { .. } | Self::Processed | Self::Settled) => false,
        };
        assert!(
            fits,
            "{:?} with {} refunded, the payment is {self:?}",
            order.status(),
            order.refunded
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ShipmentModel {
    Unknown,
    Requested { cancel: bool },
    Dispatched,
    Delivered,
    Refused,
    Cancelled,
}

impl ShipmentModel {
    pub(super) fn decide(&mut self, command: &shipment_command::Command) -> Option<Command> {
        use shipment_command::Command::{CancelShipment, ShipOrder};
        match (command, *self) {
            (ShipOrder(_), Self::Unknown) => {
                *self = Self::Requested { cancel: false };
                None
            }
            (CancelShipment(_), Self::Requested { cancel: false }) => {
                *self = Self::Requested { cancel: true };
                None
            }
            (CancelShipment(_), Self::Dispatched | Self::Delivered) => Some(shipment_dispatched()),
            (CancelShipment(_), Self::Refused) => Some(shipment_cancelled()),
            (command, shipment) => {
                panic!("{command:?} is invalid for a shipment that is {shipment:?}")
            }
        }
    }

    /// The carrier's answer to a booking. A booking that is being cancelled is dispatched or voided.
    pub(super) fn carrier_decides(&mut self, accepts: bool) -> Command {
        let is_cancelled = *self == Self::Requested { cancel: true };
        let (shipment, answer) = match (is_cancelled, accepts) {
            (_, true) => (Self::Dispatched, shipment_dispatched()),
            (true, false) => (Self::Cancelled, shipment_cancelled()),
            (false, false) => (Self::Refused, shipment_refused()),
        };
        *self = shipment;
        answer
    }

    pub(super) fn carrier_delivers(&mut self) -> Command {
        *self = Self::Delivered;
        shipment_delivered()
    }

    /// Checks that the shipment matches the final status of the order.
    pub(super) fn check_final_state(self, order: &Order) {
        let fits = match order.status() {
            OrderStatus::Delivered => self == Self::Delivered,
            _ => matches!(self, Self::Unknown | Self::Refused | Self::Cancelled),
        };
        assert!(fits, "{:?}, the shipment is {self:?}", order.status());
    }
}
