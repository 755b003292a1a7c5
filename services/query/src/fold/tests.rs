//! The folds: events in, rows out.

use contracts::core::v1::Money;
use contracts::inventory::v1::{
    StockAdjusted, StockDeducted, StockRefused, StockReleased, StockReserved, stock_event,
};
use contracts::orders::v1::order_event::Event;
use contracts::orders::v1::{
    EndReason, OrderCancelled, OrderCancelling, OrderConfirmed, OrderCreated, OrderDelivered,
    OrderFlaggedLate, OrderLine, OrderLineReserved, OrderPaymentCancelled, OrderRejected,
    OrderShipped, OrderStatus, OrderStockReserved,
};
use contracts::payments::v1::{
    PaymentCancelRequested, PaymentCancelSettled, PaymentProcessed, PaymentRefundRefused,
    PaymentRefundRequested, PaymentRefunded, PaymentRequested, PaymentStatus, payment_event,
};
use contracts::shipping::v1::{
    ShipmentCancelRefused, ShipmentCancelRequested, ShipmentDispatched, ShipmentRequested,
    ShipmentStatus, shipment_event,
};
use proptest::prelude::*;

use super::*;

const ID: &str = "0190d9a2-7d3a-7c1e-8b1a-0123456789ab";
const SKU: &str = "85123A";

fn time(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_700_000_000 + second).unwrap()
}

fn entry<E>(id: &str, offset: i64, version: i64, event: E) -> Entry<E> {
    Entry {
        partition: 0,
        offset,
        key: id.into(),
        content: Ok(Change {
            id: id.into(),
            version,
            time: time(version),
            event,
            payload: Vec::new(),
            trace: None,
        }),
    }
}

fn unreadable<E>(id: &str, offset: i64) -> Entry<E> {
    Entry {
        partition: 0,
        offset,
        key: id.into(),
        content: Err("garbage".into()),
    }
}

/// Entries of one aggregate's events, with the versions 1, 2, 3…
fn entries<E>(id: &str, events: impl IntoIterator<Item = E>) -> Vec<Entry<E>> {
    (1..)
        .zip(events)
        .map(|(version, event)| entry(id, version - 1, version, event))
        .collect()
}

/// The row after all events; every event must be applicable.
fn row<R: Row>(id: &str, events: impl IntoIterator<Item = R::Event>) -> R {
    let mut rows = HashMap::new();
    let folded = fold::<R>(&mut rows, &mut HashSet::new(), entries(id, events));
    assert_eq!(folded.parked, []);
    rows.remove(id).unwrap()
}

fn created() -> Event {
    Event::OrderCreated(OrderCreated {
        customer_id: "anne".into(),
        currency: "EUR".into(),
        total: 120,
        lines: vec![OrderLine {
            sku: SKU.into(),
            quantity: 2,
            unit_price: 60,
            ..Default::default()
        }],
        ..Default::default()
    })
}

fn reserved() -> Event {
    Event::OrderLineReserved(OrderLineReserved { sku: SKU.into() })
}

fn to_confirmed() -> Vec<Event> {
    vec![
        created(),
        reserved(),
        Event::OrderStockReserved(OrderStockReserved::default()),
        Event::OrderConfirmed(OrderConfirmed::default()),
    ]
}

fn shipped() -> Event {
    Event::OrderShipped(OrderShipped {
        tracking_number: "T1".into(),
        ..Default::default()
    })
}

#[test]
fn an_order_row_reflects_every_event() {
    let mut events = to_confirmed();
    events.extend([
        shipped(),
        Event::OrderFlaggedLate(OrderFlaggedLate {}),
        Event::OrderDelivered(OrderDelivered {}),
    ]);
    assert_eq!(
        row::<OrderRow>(ID, events),
        OrderRow {
            order_id: ID.parse().unwrap(),
            status: OrderStatus::Delivered as i16,
            end_reason: 0,
            customer_id: "anne".into(),
            total: 120,
            currency: "EUR".into(),
            line_count: 1,
            placed_at: time(1),
            confirmed_at: Some(time(4)),
            updated_at: time(7),
            version: 7,
            tracking_number: "T1".into(),
            refunded: 0,
            late: true,
        }
    );
}

/// The milestones of a batch, folded over `rows`.
fn milestones_of(
    rows: &mut HashMap<String, OrderRow>,
    entries: Vec<Entry<Event>>,
) -> Vec<Milestone> {
    milestones(&fold::<OrderRow>(rows, &mut HashSet::new(), entries))
}

#[test]
fn milestones_are_reported_once_and_timed_by_event_time() {
    let mut events = to_confirmed();
    events.extend([shipped(), Event::OrderDelivered(OrderDelivered {})]);
    let mut earlier = entries(ID, events);
    let later = earlier.split_off(3);
    let mut rows = HashMap::new();

    let first = milestones_of(&mut rows, earlier.clone());
    let statuses: Vec<_> = first.iter().map(|milestone| milestone.status).collect();
    assert_eq!(statuses, ["created", "awaiting_payment"]);
    assert!(
        first
            .iter()
            .all(|milestone| milestone.since_created.is_none())
    );
    assert_eq!(
        (first[0].total, first[0].currency.as_str(), first[0].time),
        (120, "EUR", time(1))
    );

    // The row holds the creation time: the batch need not contain the creation.
    let mut batch = earlier;
    batch.extend(later);
    let durations: Vec<_> = milestones_of(&mut rows, batch)
        .into_iter()
        .map(|milestone| {
            (
                milestone.status,
                milestone.since_created.map(|took| took.as_secs()),
            )
        })
        .collect();
    assert_eq!(
        durations,
        [
            ("confirmed", Some(3)),
            ("shipped", Some(4)),
            ("delivered", Some(5))
        ]
    );
}

#[test]
fn a_clock_that_was_set_back_gives_a_zero_duration() {
    let mut batch = entries(ID, to_confirmed());
    if let Ok(change) = &mut batch[3].content {
        change.time = time(0);
    }
    let milestones = milestones_of(&mut HashMap::new(), batch);
    assert_eq!(milestones[2].since_created, Some(std::time::Duration::ZERO));
}

#[test]
fn an_ended_order_has_its_end_reason() {
    let cancelling =
        |goal: EndReason| Event::OrderCancelling(OrderCancelling { goal: goal as i32 });
    let refunded = || Event::OrderPaymentCancelled(OrderPaymentCancelled { refunded: 120 });

    let mut events = to_confirmed();
    events.extend([
        cancelling(EndReason::Customer),
        refunded(),
        Event::OrderCancelled(OrderCancelled {}),
    ]);
    let cancelled: OrderRow = row(ID, events);
    assert_eq!(cancelled.status, OrderStatus::Cancelled as i16);
    assert_eq!(cancelled.end_reason, EndReason::Customer as i16);
    assert_eq!(cancelled.refunded, 120);

    let reason = EndReason::OutOfStock;
    let rejected = Event::OrderRejected(OrderRejected {
        reason: reason as i32,
    });
    let rejected: OrderRow = row(ID, [created(), cancelling(reason), rejected]);
    assert_eq!(
        (rejected.status, rejected.end_reason),
        (OrderStatus::Rejected as i16, reason as i16)
    );

    // Too late: the order was already shipped.
    let mut events = to_confirmed();
    events.extend([cancelling(EndReason::Customer), shipped()]);
    let sent: OrderRow = row(ID, events);
    assert_eq!(
        (sent.status, sent.end_reason),
        (OrderStatus::Shipped as i16, 0)
    );
}

#[test]
fn stock_is_counted_exactly() {
    use stock_event::Event;
    let order_id = || ID.to_owned();
    let stock: StockRow = row(
        SKU,
        [
            Event::StockRefused(StockRefused {
                order_id: order_id(),
                quantity: 1,
                available: 0,
            }),
            Event::StockAdjusted(StockAdjusted {
                delta: 10,
                ..Default::default()
            }),
            Event::StockReserved(StockReserved {
                order_id: order_id(),
                quantity: 4,
            }),
            Event::StockReserved(StockReserved {
                order_id: order_id(),
                quantity: 3,
            }),
            Event::StockReleased(StockReleased {
                order_id: order_id(),
                quantity: 3,
            }),
            Event::StockDeducted(StockDeducted {
                order_id: order_id(),
                quantity: 4,
            }),
            Event::StockAdjusted(StockAdjusted {
                delta: -1,
                ..Default::default()
            }),
        ],
    );
    let expected = StockRow {
        sku: SKU.into(),
        on_hand: 5,
        reserved: 0,
        received: 9,
        deducted: 4,
        version: 7,
    };
    assert_eq!(stock, expected);
}

#[test]
fn a_payment_and_a_shipment_follow_their_events() {
    use payment_event::Event as Paid;
    let amount = Some(Money {
        minor_units: 120,
        currency: "EUR".into(),
    });
    let refunding = PaymentRefundRequested {
        captured: true,
        provider_reference: "P1".into(),
    };
    let payment: PaymentRow = row(
        ID,
        [
            Paid::PaymentRequested(PaymentRequested {
                amount,
                ..Default::default()
            }),
            Paid::PaymentCancelRequested(PaymentCancelRequested {}),
            Paid::PaymentRefundRequested(refunding),
            Paid::PaymentRefundRefused(PaymentRefundRefused::default()),
            Paid::PaymentRefunded(PaymentRefunded::default()),
            Paid::PaymentCancelSettled(PaymentCancelSettled {
                status: PaymentStatus::Refunded as i32,
            }),
        ],
    );
    assert_eq!(
        payment,
        PaymentRow {
            order_id: ID.parse().unwrap(),
            status: PaymentStatus::Refunded as i16,
            amount: 120,
            currency: "EUR".into(),
            provider_reference: "P1".into(),
            flagged: true,
            version: 6,
        }
    );

    use shipment_event::Event as Sent;
    let shipment: ShipmentRow = row(
        ID,
        [
            Sent::ShipmentRequested(ShipmentRequested::default()),
            Sent::ShipmentCancelRequested(ShipmentCancelRequested {}),
            Sent::ShipmentDispatched(ShipmentDispatched {
                tracking_number: "T1".into(),
            }),
            Sent::ShipmentCancelRefused(ShipmentCancelRefused {}),
        ],
    );
    assert_eq!(
        (shipment.status, shipment.tracking_number.as_str()),
        (ShipmentStatus::Dispatched as i16, "T1")
    );
}

#[test]
fn a_batch_yields_only_the_last_row_of_each_aggregate() {
    let mut rows = HashMap::new();
    let folded = fold::<OrderRow>(&mut rows, &mut HashSet::new(), entries(ID, to_confirmed()));
    assert_eq!(folded.changed.len(), 1);
    assert_eq!(folded.changed[0].version, 4);
    assert_eq!(
        folded
            .applied
            .iter()
            .map(|applied| applied.offset)
            .collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
}

#[test]
fn a_repeated_event_changes_nothing() {
    let mut rows = HashMap::new();
    let mut parked = HashSet::new();
    fold::<OrderRow>(&mut rows, &mut parked, entries(ID, to_confirmed()));
    let before = rows.clone();
    let folded = fold::<OrderRow>(&mut rows, &mut parked, entries(ID, to_confirmed()));
    assert_eq!(
        (folded.repeated, folded.changed.len(), folded.applied.len()),
        (4, 0, 0)
    );
    assert_eq!(folded.parked, []);
    assert_eq!(rows, before);
}

#[test]
fn a_gap_parks_only_its_aggregate() {
    let other = "0190d9a2-7d3a-7c1e-8b1a-0123456789ac";
    let mut rows = HashMap::new();
    let mut parked = HashSet::new();
    let folded = fold::<OrderRow>(
        &mut rows,
        &mut parked,
        vec![
            entry(ID, 0, 1, created()),
            entry(ID, 1, 3, shipped()),
            entry(other, 2, 1, created()),
            // Follows the row, but comes after the gap.
            entry(ID, 3, 2, reserved()),
        ],
    );
    assert_eq!(
        folded.parked,
        [Parked {
            partition: 0,
            key: ID.into(),
            first_offset: 1,
            last_offset: 3,
            records: 2,
            error: "version 3 follows version 1".into(),
        }]
    );
    assert_eq!(rows[ID].version, 1);
    assert_eq!(rows[other].version, 1);
    assert!(parked.contains(ID.as_bytes()));
    assert_eq!(
        folded.changed.len(),
        2,
        "what came before the gap is written"
    );
}

#[test]
fn an_unreadable_record_parks_its_key_unless_it_has_none() {
    let mut rows = HashMap::new();
    let mut parked = HashSet::new();
    let folded = fold::<OrderRow>(
        &mut rows,
        &mut parked,
        vec![
            unreadable("", 0),
            unreadable("", 1),
            unreadable(ID, 2),
            entry(ID, 3, 1, created()),
        ],
    );
    let sizes: Vec<_> = folded
        .parked
        .iter()
        .map(|parked| (parked.key.len(), parked.records))
        .collect();
    assert_eq!(sizes, [(0, 2), (ID.len(), 2)]);
    assert_eq!(parked, HashSet::from([ID.into()]));
    assert!(rows.is_empty());
}

#[test]
fn a_value_that_no_column_can_store_is_an_error() {
    fn apply_error<R: Row + std::fmt::Debug>(id: &str, event: R::Event) -> ApplyError {
        R::apply(
            None,
            &EventMetadata {
                id,
                version: 1,
                time: time(1),
            },
            &event,
        )
        .unwrap_err()
    }
    let with = |change: fn(&mut OrderCreated)| match created() {
        Event::OrderCreated(mut created) => {
            change(&mut created);
            Event::OrderCreated(created)
        }
        _ => unreachable!("it is the first event"),
    };
    assert_eq!(apply_error::<OrderRow>(ID, shipped()), ApplyError::Creation);
    assert_eq!(
        apply_error::<OrderRow>("order 1", created()),
        ApplyError::Id
    );
    assert_eq!(
        apply_error::<OrderRow>(&ID.to_uppercase(), created()),
        ApplyError::Id
    );
    assert_eq!(
        apply_error::<OrderRow>(ID, with(|created| created.customer_id = "a\0b".into())),
        ApplyError::Text {
            field: "customer_id"
        }
    );
    assert_eq!(
        apply_error::<OrderRow>(
            ID,
            with(|created| created.lines[0].description = "\0".into())
        ),
        ApplyError::Text {
            field: "description"
        }
    );
    let deducted = StockDeducted {
        order_id: ID.into(),
        quantity: 1,
    };
    assert_eq!(
        apply_error::<StockRow>(SKU, stock_event::Event::StockDeducted(deducted)),
        ApplyError::Range { field: "reserved" }
    );
    let processed = PaymentProcessed {
        provider_reference: "\0".into(),
    };
    assert_eq!(
        apply_error::<PaymentRow>(ID, payment_event::Event::PaymentProcessed(processed)),
        ApplyError::Text {
            field: "provider_reference"
        }
    );
    let row: OrderRow = row(ID, [created()]);
    let second = EventMetadata {
        id: ID,
        version: 2,
        time: time(2),
    };
    assert_eq!(
        OrderRow::apply(Some(&row), &second, &created()),
        Err(ApplyError::Creation)
    );
}

/// Adjustments of a few products in log order; most versions follow each other.
fn stock_log() -> impl Strategy<Value = Vec<Entry<stock_event::Event>>> {
    prop::collection::vec(
        (
            0..4_usize,
            -3_i64..10,
            prop::sample::select(vec![0, 0, 0, 0, 0, 0, 0, 1, -1]),
        ),
        0..60,
    )
    .prop_map(|adjustments| {
        let mut versions = [0_i64; 4];
        let log =
            adjustments
                .into_iter()
                .enumerate()
                .map(|(offset, (item, delta, version_offset))| {
                    versions[item] += 1;
                    let event = stock_event::Event::StockAdjusted(StockAdjusted {
                        delta,
                        ..Default::default()
                    });
                    entry(
                        &format!("sku {item}"),
                        i64::try_from(offset).unwrap(),
                        (versions[item] + version_offset).max(1),
                        event,
                    )
                });
        log.collect()
    })
}

proptest! {
    /// I8: the rows do not depend on how the log is split into batches.
    #[test]
    fn rows_do_not_depend_on_batch_boundaries(
        log in stock_log(),
        batch_sizes in prop::collection::vec(1..9_usize, 1..60),
    ) {
        let (mut rows, mut parked) = (HashMap::<String, StockRow>::new(), HashSet::new());
        let expected = fold(&mut rows, &mut parked, log.clone());

        let (mut batched_rows, mut batched_parked) = (HashMap::<String, StockRow>::new(), HashSet::new());
        let (mut applied, mut parked_records) = (0, 0);
        let mut rest = log.as_slice();
        for size in batch_sizes.into_iter().chain([log.len()]) {
            let (batch, next) = rest.split_at(size.min(rest.len()));
            rest = next;
            let folded = fold(&mut batched_rows, &mut batched_parked, batch.to_vec());
            applied += folded.applied.len();
            parked_records += folded.parked.iter().map(|parked| parked.records).sum::<i64>();
        }
        prop_assert_eq!(&batched_rows, &rows);
        prop_assert_eq!(&batched_parked, &parked);
        prop_assert_eq!(applied, expected.applied.len());
        prop_assert_eq!(parked_records, expected.parked.iter().map(|parked| parked.records).sum::<i64>());
        for row in rows.values() {
            prop_assert_eq!(row.received, row.on_hand + row.deducted);
            prop_assert!(row.on_hand >= 0);
        }
    }
}
