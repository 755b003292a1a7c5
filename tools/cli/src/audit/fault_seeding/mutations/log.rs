//! Mutations of events, commands, outcomes, states and committed offsets.

use audit::Invariant;
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

use super::Mutation;

pub const LOG: &[Mutation] = &[
    ("a second outcome", Invariant::I1, |evidence| {
        let record_ref = evidence.outcome::<Orders>(|_, _| true);
        evidence.append_copy(record_ref);
    }),
    ("a lost outcome", Invariant::I1, |evidence| {
        let record_ref = evidence.outcome::<Inventory>(|_, _| true);
        evidence.remove(record_ref);
    }),
    (
        "an accepted order without its creation",
        Invariant::I2,
        |evidence| {
            let record_ref =
                evidence.event::<Orders>(|_, event| matches!(event, OrderEvent::OrderCreated(_)));
            evidence.remove(record_ref);
        },
    ),
    ("an oversold product", Invariant::I4, |evidence| {
        evidence.rewrite_event::<Inventory>(|_, event| match event {
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
        |evidence| {
            let record_ref = evidence.event::<Inventory>(|_, event| match event {
                StockEvent::StockReleased(event) => event.quantity > 0,
                _ => false,
            });
            evidence.remove(record_ref);
        },
    ),
    (
        "a deduction of what was not reserved",
        Invariant::I4,
        |evidence| {
            evidence.rewrite_event::<Inventory>(|_, event| match event {
                StockEvent::StockDeducted(event) => {
                    event.quantity += 1;
                    true
                }
                _ => false,
            });
        },
    ),
    (
        "an order with another refund than the payment",
        Invariant::I5,
        |evidence| {
            evidence.rewrite_event::<Orders>(|_, event| match event {
                OrderEvent::OrderPaymentCancelled(event) => {
                    event.refunded += 1;
                    true
                }
                _ => false,
            });
        },
    ),
    ("a lost event", Invariant::I6, |evidence| {
        let record_ref = evidence.event::<Orders>(|metadata, _| metadata.aggregate_version == 2);
        evidence.remove(record_ref);
    }),
    ("two events swapped", Invariant::I6, |evidence| {
        let (first, second) = evidence.consecutive_events::<Orders>();
        evidence.swap(first, second);
    }),
    ("an event written twice", Invariant::I6, |evidence| {
        let record_ref = evidence.event::<Payments>(|_, _| true);
        evidence.append_copy(record_ref);
    }),
    ("a version skipped", Invariant::I6, |evidence| {
        evidence.rewrite_event::<Shipping>(|metadata, _| {
            metadata.aggregate_version += 1;
            true
        });
    }),
    (
        "an event under the id of another",
        Invariant::I6,
        |evidence| {
            let other = evidence
                .metadata::<Orders>(|metadata, _| metadata.aggregate_version == 1)
                .id;
            evidence.rewrite_event::<Orders>(|metadata, _| {
                let is_other = metadata.aggregate_version == 2;
                if is_other {
                    metadata.id.clone_from(&other);
                }
                is_other
            });
        },
    ),
    (
        "a state of a version that was aborted",
        Invariant::I10,
        |evidence| {
            evidence.rewrite_state::<Orders>(|metadata, _| {
                metadata.aggregate_version += 1_000;
            });
        },
    ),
    (
        "an outcome of a version that was aborted",
        Invariant::I10,
        |evidence| {
            evidence.rewrite_outcome::<Inventory>(|metadata, _| {
                metadata.aggregate_version += 5;
                true
            });
        },
    ),
    (
        "an order of another total than its lines",
        Invariant::I11,
        |evidence| {
            evidence.rewrite_event::<Orders>(|_, event| match event {
                OrderEvent::OrderCreated(event) => {
                    event.total += 1;
                    true
                }
                _ => false,
            });
        },
    ),
    ("a command without its events", Invariant::I12, |evidence| {
        let record_ref = evidence
            .event::<Shipping>(|_, event| matches!(event, ShipmentEvent::ShipmentDelivered(_)));
        evidence.remove(record_ref);
    }),
    (
        "events of a command that was aborted",
        Invariant::I12,
        |evidence| {
            let record_ref = evidence.command::<Payments>(|_, _| true);
            evidence.inner.records_mut(record_ref.topic_partition)[record_ref.index].committed =
                false;
        },
    ),
    (
        "a message that did not arrive",
        Invariant::I12,
        |evidence| {
            let record_ref =
                evidence.command::<Inventory>(|metadata, _| !metadata.causation_id.is_empty());
            evidence.remove(record_ref);
        },
    ),
    ("a partly aborted transaction", Invariant::I12, |evidence| {
        let record_ref =
            evidence.event::<Orders>(|_, event| matches!(event, OrderEvent::OrderStockReserved(_)));
        evidence.inner.records_mut(record_ref.topic_partition)[record_ref.index].committed = false;
    }),
    (
        "a dead letter of a command that was processed",
        Invariant::I12,
        |evidence| {
            let record_ref = evidence.command::<Orders>(|_, _| true);
            evidence.dead_letter(record_ref);
        },
    ),
    ("an order from another body", Invariant::I13, |evidence| {
        evidence.rewrite_event::<Orders>(|_, event| match event {
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
        |evidence| {
            let record_ref = evidence
                .command::<Orders>(|_, command| matches!(command, OrderCommand::PlaceOrder(_)));
            evidence.rewrite_command::<Orders>(record_ref, |_, command| {
                if let OrderCommand::PlaceOrder(command) = command {
                    command.lines[0].quantity += 1;
                }
            });
        },
    ),
    ("confirmed, then delivered", Invariant::I14, |evidence| {
        evidence.rewrite_event::<Orders>(|_, event| {
            let is_shipped = matches!(event, OrderEvent::OrderShipped(_));
            if is_shipped {
                *event = OrderEvent::OrderDelivered(OrderDelivered {});
            }
            is_shipped
        });
    }),
    ("reserved, then shipped", Invariant::I14, |evidence| {
        evidence.rewrite_event::<Orders>(|_, event| {
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
    ("requested, then settled", Invariant::I14, |evidence| {
        evidence.rewrite_event::<Payments>(|_, event| {
            let is_processed = matches!(event, PaymentEvent::PaymentProcessed(_));
            if is_processed {
                *event = PaymentEvent::PaymentSettled(PaymentSettled {});
            }
            is_processed
        });
    }),
    ("requested, then delivered", Invariant::I14, |evidence| {
        evidence.rewrite_event::<Shipping>(|_, event| {
            let is_dispatched = matches!(event, ShipmentEvent::ShipmentDispatched(_));
            if is_dispatched {
                *event = ShipmentEvent::ShipmentDelivered(ShipmentDelivered {});
            }
            is_dispatched
        });
    }),
    ("a state that is not the fold", Invariant::I15, |evidence| {
        evidence.rewrite_state::<Inventory>(|_, body| {
            if let StateBody::Aggregate(item) = body {
                item.on_hand += 1;
            }
        });
    }),
    (
        "a checkpoint that leaves a state out",
        Invariant::I15,
        |evidence| {
            let record_ref = evidence.state::<Payments>();
            evidence.remove_key(record_ref);
        },
    ),
    (
        "a checkpoint ahead of the log",
        Invariant::I15,
        |evidence| {
            evidence
                .rewrite_checkpoint::<Shipping>(|checkpoint| checkpoint.events_offset += 1_000_000);
        },
    ),
    ("an undecodable event", Invariant::I16, |evidence| {
        let record_ref = evidence.event::<Payments>(|_, _| true);
        let record = &mut evidence.inner.records_mut(record_ref.topic_partition)[record_ref.index];
        record.input.payload.as_mut().unwrap().truncate(9);
    }),
    (
        "an event under an unknown schema",
        Invariant::I16,
        |evidence| {
            let record_ref = evidence.event::<Orders>(|_, _| true);
            let record =
                &mut evidence.inner.records_mut(record_ref.topic_partition)[record_ref.index];
            record.input.payload.as_mut().unwrap()[1..5].copy_from_slice(&[0x7f, 1, 2, 3]);
        },
    ),
    (
        "an event that breaks its field rules",
        Invariant::I16,
        |evidence| {
            evidence.rewrite_event::<Inventory>(|_, event| match event {
                StockEvent::StockReserved(event) => {
                    *event = StockReserved {
                        order_id: "unknown".into(),
                        quantity: 0,
                    };
                    true
                }
                _ => false,
            });
        },
    ),
    ("a rewritten event", Invariant::I17, |evidence| {
        evidence.rewrite_event::<Shipping>(|_, event| match event {
            ShipmentEvent::ShipmentDispatched(event) => {
                event.tracking_number.push('X');
                true
            }
            _ => false,
        });
    }),
    ("a rewritten outcome", Invariant::I17, |evidence| {
        evidence.rewrite_outcome::<Orders>(|_, outcome| match outcome {
            order_outcome::Outcome::Accepted(accepted) => {
                accepted.status += 1;
                true
            }
            _ => false,
        });
    }),
    ("a rewritten message", Invariant::I17, |evidence| {
        let record_ref = evidence.command::<Orders>(|_, command| {
            matches!(command, OrderCommand::RecordPaymentProcessed(_))
        });
        evidence.rewrite_command::<Orders>(record_ref, |_, command| {
            if let OrderCommand::RecordPaymentProcessed(command) = command {
                command.provider_reference.push('X');
            }
        });
    }),
    (
        "a group whose offset was reset",
        Invariant::I12,
        |evidence| {
            let record_ref = evidence.event::<Orders>(|_, _| true);
            let key = (Service::Orders, record_ref.topic_partition.partition);
            evidence.inner.cut.committed.insert(key, 0);
            // The event is too old to be in flight.
            evidence.inner.cut.begun_ms += 120_000;
        },
    ),
    (
        "a quantity at the limit of the type",
        Invariant::I4,
        |evidence| {
            for _ in 0..2 {
                evidence.rewrite_event::<Inventory>(|_, event| match event {
                    StockEvent::StockAdjusted(event) if event.delta != i64::MAX => {
                        event.delta = i64::MAX;
                        true
                    }
                    _ => false,
                });
            }
            let record_ref = evidence.event::<Inventory>(
                |_, event| matches!(event, StockEvent::StockReleased(event) if event.quantity > 0),
            );
            evidence.remove(record_ref);
        },
    ),
];
