//! What is planted.

use audit::rows::Row;
use audit::{ClientObservation, Invariant};
use contracts::inventory::v1::StockReserved;
use contracts::inventory::v1::stock_event::Event as StockEvent;
use contracts::orders::v1::order_command::Command as OrderCommand;
use contracts::orders::v1::order_event::Event as OrderEvent;
use contracts::orders::v1::{OrderDelivered, OrderShipped, order_outcome};
use contracts::payments::v1::PaymentSettled;
use contracts::payments::v1::payment_event::Event as PaymentEvent;
use contracts::shipping::v1::ShipmentDelivered;
use contracts::shipping::v1::shipment_event::Event as ShipmentEvent;
use contracts::{Inventory, Orders, Payments, Service, Shipping, StateBody};

use super::records::MutatedLog;

/// One way to spoil a healthy world.
pub type Mutation = fn(&mut MutatedLog<'_>);

/// What is planted, and the invariant that must be named.
pub const MUTATIONS: &[(&str, Invariant, Mutation)] = &[
    ("a second outcome", Invariant::I1, |copy| {
        let spot = copy.outcome::<Orders>(|_, _| true);
        copy.append_copy(spot);
    }),
    ("a lost outcome", Invariant::I1, |copy| {
        let spot = copy.outcome::<Inventory>(|_, _| true);
        copy.remove(spot);
    }),
    (
        "an acknowledged order that is not there",
        Invariant::I2,
        |copy| {
            copy.note(ClientObservation::Acknowledged {
                order_id: "01890000-0000-7000-8000-000000000001".into(),
                minor_units: 1,
                version: 1,
            });
        },
    ),
    (
        "an order of another total than acknowledged",
        Invariant::I2,
        |copy| {
            let (order_id, minor_units) = copy.created();
            copy.note(ClientObservation::Acknowledged {
                order_id,
                minor_units: minor_units + 1,
                version: 1,
            });
        },
    ),
    (
        "an accepted order without its creation",
        Invariant::I2,
        |copy| {
            let spot =
                copy.event::<Orders>(|_, event| matches!(event, OrderEvent::OrderCreated(_)));
            copy.remove(spot);
        },
    ),
    ("a second charge in the ledger", Invariant::I3, |copy| {
        let mut entry = copy.charge();
        entry.idempotency_key = entry.idempotency_key.replace("/1", "/2");
        copy.ledger().push(entry);
    }),
    ("a charge of nobody in the ledger", Invariant::I3, |copy| {
        let mut entry = copy.charge();
        entry.idempotency_key = "01890000-0000-7000-8000-000000000001/charge/1".into();
        copy.ledger().push(entry);
    }),
    ("a charge that the ledger lacks", Invariant::I3, |copy| {
        let entry = copy.charge();
        copy.ledger().retain(|other| *other != entry);
    }),
    ("a parcel that the carrier lacks", Invariant::I3, |copy| {
        let bookings = copy.memory.bookings.as_mut().unwrap();
        let booked = bookings.iter().position(|entry| entry.kind == "booked");
        bookings.remove(booked.unwrap());
    }),
    ("an oversold product", Invariant::I4, |copy| {
        copy.rewrite_event::<Inventory>(|_, event| match event {
            StockEvent::StockReserved(event) => {
                event.quantity = 900_000;
                true
            }
            _ => false,
        });
    }),
    (
        "a reservation that is never released",
        Invariant::I4,
        |copy| {
            let spot = copy.event::<Inventory>(|_, event| match event {
                StockEvent::StockReleased(event) => event.quantity > 0,
                _ => false,
            });
            copy.remove(spot);
        },
    ),
    (
        "a deduction of what was not reserved",
        Invariant::I4,
        |copy| {
            copy.rewrite_event::<Inventory>(|_, event| match event {
                StockEvent::StockDeducted(event) => {
                    event.quantity += 1;
                    true
                }
                _ => false,
            });
        },
    ),
    ("a refund that the ledger lacks", Invariant::I5, |copy| {
        let entry = copy.refund();
        copy.ledger().retain(|other| *other != entry);
    }),
    ("a refund of a delivered order", Invariant::I5, |copy| {
        let delivered = copy.delivered();
        let mut entry = copy.refund();
        entry.idempotency_key = format!("{delivered}/refund/1");
        copy.ledger().push(entry);
    }),
    (
        "an order that was told of another refund",
        Invariant::I5,
        |copy| {
            copy.rewrite_event::<Orders>(|_, event| match event {
                OrderEvent::OrderPaymentCancelled(event) => {
                    event.refunded += 1;
                    true
                }
                _ => false,
            });
        },
    ),
    ("a lost event", Invariant::I6, |copy| {
        let spot = copy.event::<Orders>(|metadata, _| metadata.aggregate_version == 2);
        copy.remove(spot);
    }),
    ("two events swapped", Invariant::I6, |copy| {
        let (first, second) = copy.neighbours::<Orders>();
        copy.swap(first, second);
    }),
    ("an event written twice", Invariant::I6, |copy| {
        let spot = copy.event::<Payments>(|_, _| true);
        copy.append_copy(spot);
    }),
    ("a version skipped", Invariant::I6, |copy| {
        copy.rewrite_event::<Shipping>(|metadata, _| {
            metadata.aggregate_version += 1;
            true
        });
    }),
    ("an event under the id of another", Invariant::I6, |copy| {
        let other = copy
            .metadata::<Orders>(|metadata, _| metadata.aggregate_version == 1)
            .id;
        copy.rewrite_event::<Orders>(|metadata, _| {
            let is_other = metadata.aggregate_version == 2;
            if is_other {
                metadata.id.clone_from(&other);
            }
            is_other
        });
    }),
    ("a reader who goes back", Invariant::I7, |copy| {
        let (order_id, _) = copy.created();
        for version in [3, 2] {
            copy.note(ClientObservation::Read {
                reader: "ada".into(),
                order_id: order_id.clone(),
                version,
            });
        }
    }),
    (
        "a reader who sees what the log lacks",
        Invariant::I7,
        |copy| {
            let (order_id, _) = copy.created();
            copy.note(ClientObservation::Read {
                reader: "ada".into(),
                order_id,
                version: 10_000,
            });
        },
    ),
    ("a row with another total", Invariant::I8, |copy| {
        copy.row(|row| match row {
            Row::Order(row) => {
                row.total += 1;
                true
            }
            _ => false,
        });
    }),
    ("a row that is missing", Invariant::I8, |copy| {
        let rows = copy.memory.rows.as_mut().unwrap();
        let payment = rows.iter().position(|row| matches!(row, Row::Payment(_)));
        rows.remove(payment.unwrap());
    }),
    ("a row too many", Invariant::I8, |copy| {
        let rows = copy.memory.rows.as_mut().unwrap();
        let stock = rows.iter().find_map(|row| match row {
            Row::Stock(row) => Some(row.clone()),
            _ => None,
        });
        let mut stock = stock.unwrap();
        stock.sku = "of-nobody".into();
        rows.push(Row::Stock(stock));
    }),
    ("a line with another price", Invariant::I8, |copy| {
        copy.row(|row| match row {
            Row::OrderLine(row) => {
                row.unit_price -= 1;
                true
            }
            _ => false,
        });
    }),
    ("a history with other bytes", Invariant::I8, |copy| {
        copy.row(|row| match row {
            Row::OrderEvent(row) => {
                row.record.push(0);
                true
            }
            _ => false,
        });
    }),
    ("a shipment of another version", Invariant::I8, |copy| {
        copy.row(|row| match row {
            Row::Shipment(row) => {
                row.version += 1;
                true
            }
            _ => false,
        });
    }),
    ("a position behind what is applied", Invariant::I9, |copy| {
        let spot = copy.event::<Orders>(|_, _| true);
        let key = (Service::Orders, spot.place.partition);
        copy.memory.cut.positions.insert(key, 0);
    }),
    ("a position beyond the log", Invariant::I9, |copy| {
        for position in copy.memory.cut.positions.values_mut() {
            *position += 1_000_000;
        }
    }),
    ("an aborted event in the history", Invariant::I10, |copy| {
        let (partition, offset) = copy.aborted();
        copy.row(|row| match row {
            Row::OrderEvent(row) if row.partition == partition => {
                row.offset = offset;
                true
            }
            _ => false,
        });
    }),
    (
        "a state of a version that was aborted",
        Invariant::I10,
        |copy| {
            copy.rewrite_state::<Orders>(|metadata, _| {
                metadata.aggregate_version += 1_000;
            });
        },
    ),
    (
        "an outcome of a version that was aborted",
        Invariant::I10,
        |copy| {
            copy.rewrite_outcome::<Inventory>(|metadata, _| {
                metadata.aggregate_version += 5;
                true
            });
        },
    ),
    (
        "an order of another total than its lines",
        Invariant::I11,
        |copy| {
            copy.rewrite_event::<Orders>(|_, event| match event {
                OrderEvent::OrderCreated(event) => {
                    event.total += 1;
                    true
                }
                _ => false,
            });
        },
    ),
    ("another amount in the ledger", Invariant::I11, |copy| {
        let delivered = copy.delivered();
        let entry = copy
            .ledger()
            .iter_mut()
            .find(|entry| entry.kind == "charged" && entry.idempotency_key.starts_with(&delivered));
        entry.unwrap().amount.as_mut().unwrap().minor_units += 1;
    }),
    ("a command without its events", Invariant::I12, |copy| {
        let spot =
            copy.event::<Shipping>(|_, event| matches!(event, ShipmentEvent::ShipmentDelivered(_)));
        copy.remove(spot);
    }),
    (
        "events of a command that was aborted",
        Invariant::I12,
        |copy| {
            let spot = copy.command::<Payments>(|_, _| true);
            copy.memory.records_mut(spot.place)[spot.index].committed = false;
        },
    ),
    ("a message that did not arrive", Invariant::I12, |copy| {
        let spot = copy.command::<Inventory>(|metadata, _| !metadata.causation_id.is_empty());
        copy.remove(spot);
    }),
    ("half a transaction", Invariant::I12, |copy| {
        let spot =
            copy.event::<Orders>(|_, event| matches!(event, OrderEvent::OrderStockReserved(_)));
        copy.memory.records_mut(spot.place)[spot.index].committed = false;
    }),
    (
        "a dead letter of a command that was processed",
        Invariant::I12,
        |copy| {
            let spot = copy.command::<Orders>(|_, _| true);
            copy.dead_letter(spot);
        },
    ),
    ("an order from another body", Invariant::I13, |copy| {
        copy.rewrite_event::<Orders>(|_, event| match event {
            OrderEvent::OrderCreated(event) => {
                event.body_digest[0] ^= 1;
                true
            }
            _ => false,
        });
    }),
    (
        "another body under the same id, accepted",
        Invariant::I13,
        |copy| {
            let spot =
                copy.command::<Orders>(|_, command| matches!(command, OrderCommand::PlaceOrder(_)));
            copy.rewrite_command::<Orders>(spot, |_, command| {
                if let OrderCommand::PlaceOrder(command) = command {
                    command.lines[0].quantity += 1;
                }
            });
        },
    ),
    ("two answers to one id", Invariant::I13, |copy| {
        let (order_id, minor_units) = copy.created();
        for more in [0, 1] {
            copy.note(ClientObservation::Acknowledged {
                order_id: order_id.clone(),
                minor_units: minor_units + more,
                version: 1,
            });
        }
    }),
    ("confirmed, then delivered", Invariant::I14, |copy| {
        copy.rewrite_event::<Orders>(|_, event| {
            let is_shipped = matches!(event, OrderEvent::OrderShipped(_));
            if is_shipped {
                *event = OrderEvent::OrderDelivered(OrderDelivered {});
            }
            is_shipped
        });
    }),
    ("reserved, then shipped", Invariant::I14, |copy| {
        copy.rewrite_event::<Orders>(|_, event| {
            let is_confirmed = matches!(event, OrderEvent::OrderConfirmed(_));
            if is_confirmed {
                *event = OrderEvent::OrderShipped(OrderShipped {
                    tracking_number: "X".into(),
                    deadline_ms: 1,
                });
            }
            is_confirmed
        });
    }),
    ("requested, then settled", Invariant::I14, |copy| {
        copy.rewrite_event::<Payments>(|_, event| {
            let is_processed = matches!(event, PaymentEvent::PaymentProcessed(_));
            if is_processed {
                *event = PaymentEvent::PaymentSettled(PaymentSettled {});
            }
            is_processed
        });
    }),
    ("requested, then delivered", Invariant::I14, |copy| {
        copy.rewrite_event::<Shipping>(|_, event| {
            let is_dispatched = matches!(event, ShipmentEvent::ShipmentDispatched(_));
            if is_dispatched {
                *event = ShipmentEvent::ShipmentDelivered(ShipmentDelivered {});
            }
            is_dispatched
        });
    }),
    ("a state that is not the fold", Invariant::I15, |copy| {
        copy.rewrite_state::<Inventory>(|_, body| {
            if let StateBody::Aggregate(item) = body {
                item.on_hand += 1;
            }
        });
    }),
    (
        "a checkpoint that leaves a state out",
        Invariant::I15,
        |copy| {
            let spot = copy.state::<Payments>();
            copy.remove_key(spot);
        },
    ),
    ("a checkpoint ahead of the log", Invariant::I15, |copy| {
        copy.rewrite_checkpoint::<Shipping>(|checkpoint| checkpoint.events_offset += 1_000_000);
    }),
    ("an event that is garbage", Invariant::I16, |copy| {
        let spot = copy.event::<Payments>(|_, _| true);
        let record = &mut copy.memory.records_mut(spot.place)[spot.index];
        record.input.payload.as_mut().unwrap().truncate(9);
    }),
    ("an event under an unknown schema", Invariant::I16, |copy| {
        let spot = copy.event::<Orders>(|_, _| true);
        let record = &mut copy.memory.records_mut(spot.place)[spot.index];
        record.input.payload.as_mut().unwrap()[1..5].copy_from_slice(&[0x7f, 1, 2, 3]);
    }),
    (
        "an event that breaks its field rules",
        Invariant::I16,
        |copy| {
            copy.rewrite_event::<Inventory>(|_, event| match event {
                StockEvent::StockReserved(event) => {
                    *event = StockReserved {
                        order_id: "nobody".into(),
                        quantity: 0,
                    };
                    true
                }
                _ => false,
            });
        },
    ),
    ("a rewritten event", Invariant::I17, |copy| {
        copy.rewrite_event::<Shipping>(|_, event| match event {
            ShipmentEvent::ShipmentDispatched(event) => {
                event.tracking_number.push('X');
                true
            }
            _ => false,
        });
    }),
    ("a rewritten outcome", Invariant::I17, |copy| {
        copy.rewrite_outcome::<Orders>(|_, outcome| match outcome {
            order_outcome::Outcome::Accepted(accepted) => {
                accepted.status += 1;
                true
            }
            _ => false,
        });
    }),
    ("a rewritten message", Invariant::I17, |copy| {
        let spot = copy.command::<Orders>(|_, command| {
            matches!(command, OrderCommand::RecordPaymentProcessed(_))
        });
        copy.rewrite_command::<Orders>(spot, |_, command| {
            if let OrderCommand::RecordPaymentProcessed(command) = command {
                command.provider_reference.push('X');
            }
        });
    }),
    ("a group that was set back", Invariant::I12, |copy| {
        let spot = copy.event::<Orders>(|_, _| true);
        let key = (Service::Orders, spot.place.partition);
        copy.memory.cut.committed.insert(key, 0);
        // It cannot be under way any more.
        copy.memory.cut.begun_ms += 120_000;
    }),
    ("a ledger's entry of no kind", Invariant::I3, |copy| {
        let mut entry = copy.charge();
        entry.kind = "chargeback".into();
        copy.ledger().push(entry);
    }),
    ("a refund in another currency", Invariant::I3, |copy| {
        let refund = copy.refund();
        let mut entries = copy.ledger().iter_mut();
        let entry = entries.find(|entry| **entry == refund).unwrap();
        entry.amount.as_mut().unwrap().currency = "XTS".into();
    }),
    (
        "a charge of all the money there is",
        Invariant::I3,
        |copy| {
            let mut entry = copy.charge();
            entry.amount.as_mut().unwrap().minor_units = i64::MAX;
            copy.ledger().extend([entry.clone(), entry]);
        },
    ),
    ("more pieces than can be counted", Invariant::I4, |copy| {
        for _ in 0..2 {
            copy.rewrite_event::<Inventory>(|_, event| match event {
                StockEvent::StockAdjusted(event) if event.delta != i64::MAX => {
                    event.delta = i64::MAX;
                    true
                }
                _ => false,
            });
        }
        let spot = copy.event::<Inventory>(
            |_, event| matches!(event, StockEvent::StockReleased(event) if event.quantity > 0),
        );
        copy.remove(spot);
    }),
];
