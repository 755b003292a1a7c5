//! The folds, given events, then rows.

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

/// Events of one aggregate, with the versions 1, 2, 3…
fn life<E>(id: &str, events: impl IntoIterator<Item = E>) -> Vec<Entry<E>> {
    (1..)
        .zip(events)
        .map(|(version, event)| entry(id, version - 1, version, event))
        .collect()
}

/// The row that a whole life leads to; every event must fit.
fn row<R: Row>(id: &str, events: impl IntoIterator<Item = R::Event>) -> R {
    let mut rows = HashMap::new();
    let folded = fold::<R>(&mut rows, &mut HashSet::new(), life(id, events));
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
fn an_order_is_shown_through_its_whole_life() {
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

/// The steps of a batch over rows as they stood before it.
fn steps_of(rows: &mut HashMap<String, OrderRow>, entries: Vec<Entry<Event>>) -> Vec<Step> {
    steps(&fold::<OrderRow>(rows, &mut HashSet::new(), entries))
}

#[test]
fn the_steps_of_an_order_are_told_once_and_timed_by_the_log() {
    let mut events = to_confirmed();
    events.extend([shipped(), Event::OrderDelivered(OrderDelivered {})]);
    let mut entries = life(ID, events);
    let later = entries.split_off(3);
    let mut rows = HashMap::new();

    let first = steps_of(&mut rows, entries.clone());
    let told: Vec<_> = first.iter().map(|step| step.status).collect();
    assert_eq!(told, ["created", "awaiting_payment"]);
    assert!(first.iter().all(|step| step.since_created.is_none()));
    assert_eq!(
        (first[0].total, first[0].currency.as_str(), first[0].time),
        (120, "EUR", time(1))
    );

    // What came before is in the row: the batch need not hold the creation.
    let mut batch = entries;
    batch.extend(later);
    let told: Vec<_> = steps_of(&mut rows, batch)
        .into_iter()
        .map(|step| (step.status, step.since_created.map(|took| took.as_secs())))
        .collect();
    assert_eq!(
        told,
        [
            ("confirmed", Some(3)),
            ("shipped", Some(4)),
            ("delivered", Some(5))
        ]
    );
}

#[test]
fn a_clock_that_was_set_back_takes_no_time() {
    let mut entries = life(ID, to_confirmed());
    if let Ok(change) = &mut entries[3].content {
        change.time = time(0);
    }
    let steps = steps_of(&mut HashMap::new(), entries);
    assert_eq!(steps[2].since_created, Some(std::time::Duration::ZERO));
}

#[test]
fn an_order_ends_with_its_reason() {
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

    // Too late: the carrier had it already.
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
fn a_batch_is_coalesced_to_the_last_rows() {
    let mut rows = HashMap::new();
    let folded = fold::<OrderRow>(&mut rows, &mut HashSet::new(), life(ID, to_confirmed()));
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
    fold::<OrderRow>(&mut rows, &mut parked, life(ID, to_confirmed()));
    let before = rows.clone();
    let folded = fold::<OrderRow>(&mut rows, &mut parked, life(ID, to_confirmed()));
    assert_eq!(
        (folded.repeated, folded.changed.len(), folded.applied.len()),
        (4, 0, 0)
    );
    assert_eq!(folded.parked, []);
    assert_eq!(rows, before);
}

#[test]
fn a_gap_parks_the_aggregate_and_no_other() {
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
            // Would fit the row, but follows what did not.
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
fn what_no_column_can_hold_is_a_misfit() {
    fn misfit<R: Row + std::fmt::Debug>(id: &str, event: R::Event) -> ApplyError {
        R::apply(
            None,
            &Occurrence {
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
    assert_eq!(misfit::<OrderRow>(ID, shipped()), ApplyError::Creation);
    assert_eq!(misfit::<OrderRow>("order 1", created()), ApplyError::Id);
    assert_eq!(
        misfit::<OrderRow>(&ID.to_uppercase(), created()),
        ApplyError::Id
    );
    assert_eq!(
        misfit::<OrderRow>(ID, with(|created| created.customer_id = "a\0b".into())),
        ApplyError::Text {
            field: "customer_id"
        }
    );
    assert_eq!(
        misfit::<OrderRow>(
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
        misfit::<StockRow>(SKU, stock_event::Event::StockDeducted(deducted)),
        ApplyError::Range { field: "reserved" }
    );
    let processed = PaymentProcessed {
        provider_reference: "\0".into(),
    };
    assert_eq!(
        misfit::<PaymentRow>(ID, payment_event::Event::PaymentProcessed(processed)),
        ApplyError::Text {
            field: "provider_reference"
        }
    );
    let row: OrderRow = row(ID, [created()]);
    let second = Occurrence {
        id: ID,
        version: 2,
        time: time(2),
    };
    assert_eq!(
        OrderRow::apply(Some(&row), &second, &created()),
        Err(ApplyError::Creation)
    );
}

/// Adjustments of a few products with versions that mostly fit, in the order of a log.
fn stock_log() -> impl Strategy<Value = Vec<Entry<stock_event::Event>>> {
    prop::collection::vec(
        (
            0..4_usize,
            -3_i64..10,
            prop::sample::select(vec![0, 0, 0, 0, 0, 0, 0, 1, -1]),
        ),
        0..60,
    )
    .prop_map(|steps| {
        let mut versions = [0_i64; 4];
        let log = steps
            .into_iter()
            .enumerate()
            .map(|(offset, (item, delta, slip))| {
                versions[item] += 1;
                let event = stock_event::Event::StockAdjusted(StockAdjusted {
                    delta,
                    ..Default::default()
                });
                entry(
                    &format!("sku {item}"),
                    i64::try_from(offset).unwrap(),
                    (versions[item] + slip).max(1),
                    event,
                )
            });
        log.collect()
    })
}

proptest! {
    /// I8: the rows do not depend on how the log is cut into batches, or on repeating a batch.
    #[test]
    fn rows_are_the_fold_of_the_log_however_it_is_cut(log in stock_log(), cuts in prop::collection::vec(1..9_usize, 1..60)) {
        let (mut rows, mut parked) = (HashMap::<String, StockRow>::new(), HashSet::new());
        let whole = fold(&mut rows, &mut parked, log.clone());

        let (mut cut_rows, mut cut_parked) = (HashMap::<String, StockRow>::new(), HashSet::new());
        let (mut applied, mut aside) = (0, 0);
        let mut rest = log.as_slice();
        for size in cuts.into_iter().chain([log.len()]) {
            let (batch, next) = rest.split_at(size.min(rest.len()));
            rest = next;
            let folded = fold(&mut cut_rows, &mut cut_parked, batch.to_vec());
            applied += folded.applied.len();
            aside += folded.parked.iter().map(|parked| parked.records).sum::<i64>();
        }
        prop_assert_eq!(&cut_rows, &rows);
        prop_assert_eq!(&cut_parked, &parked);
        prop_assert_eq!(applied, whole.applied.len());
        prop_assert_eq!(aside, whole.parked.iter().map(|parked| parked.records).sum::<i64>());
        for row in rows.values() {
            prop_assert_eq!(row.received, row.on_hand + row.deducted);
            prop_assert!(row.on_hand >= 0);
        }
    }
}
