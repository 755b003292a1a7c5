//! The commands of an order to inventory, payments and shipping.

use contracts::Message;
use contracts::core::v1::Money;
use contracts::inventory::v1::{CommitStock, ReleaseStock, ReserveStock, stock_command};
use contracts::orders::v1::{LineProgress, PaymentProgress};
use contracts::payments::v1::{CancelPayment, ChargePayment, SettlePayment, payment_command};
use contracts::shipping::v1::{CancelShipment, ShipOrder, shipment_command};

use super::{Order, sku_of};

pub(super) fn reserve_lines(order: &Order, id: &str) -> impl Iterator<Item = Message> {
    order.lines.iter().map(move |line| {
        let quantity = line.line.as_ref().map_or(0, |line| line.quantity);
        let reserve = ReserveStock {
            order_id: id.to_owned(),
            quantity,
        };
        Message::new(sku_of(line), stock_command::Command::ReserveStock(reserve))
    })
}

pub(super) fn charge(order: &Order, id: &str) -> Option<Message> {
    let amount = Money {
        minor_units: order.total,
        currency: order.currency.clone(),
    };
    let charge = ChargePayment {
        amount: Some(amount),
        customer_id: order.customer_id.clone(),
    };
    let message = || Message::new(id, payment_command::Command::ChargePayment(charge));
    (order.total > 0).then(message)
}

pub(super) fn ship(order: &Order, id: &str) -> Message {
    let quantities = order
        .lines
        .iter()
        .filter_map(|line| line.line.as_ref())
        .map(|line| line.quantity);
    let pieces = quantities.map(u64::from).sum();
    let ship = ShipOrder {
        contact: order.contact.clone(),
        pieces,
    };
    Message::new(id, shipment_command::Command::ShipOrder(ship))
}

pub(super) fn commit_lines(order: &Order, id: &str) -> impl Iterator<Item = Message> {
    order.lines.iter().map(move |line| {
        let commit = CommitStock {
            order_id: id.to_owned(),
        };
        Message::new(sku_of(line), stock_command::Command::CommitStock(commit))
    })
}

pub(super) fn settle(order: &Order, id: &str) -> Option<Message> {
    let settle = payment_command::Command::SettlePayment(SettlePayment {});
    (order.total > 0).then(|| Message::new(id, settle))
}

pub(super) fn cancel_shipment(id: &str) -> Message {
    Message::new(
        id,
        shipment_command::Command::CancelShipment(CancelShipment {}),
    )
}

pub(super) fn release_lines(order: &Order, id: &str) -> impl Iterator<Item = Message> {
    let releasing = order
        .lines
        .iter()
        .filter(|line| line.progress() == LineProgress::Releasing);
    releasing.map(move |line| {
        let release = ReleaseStock {
            order_id: id.to_owned(),
        };
        Message::new(sku_of(line), stock_command::Command::ReleaseStock(release))
    })
}

pub(super) fn cancel_payment(order: &Order, id: &str) -> Option<Message> {
    let cancel = payment_command::Command::CancelPayment(CancelPayment {});
    (order.payment() == PaymentProgress::Cancelling).then(|| Message::new(id, cancel))
}
