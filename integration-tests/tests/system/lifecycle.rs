//! The lifecycle of an order through four services.

use contracts::Service;
use contracts::orders::v1::{EndReason, OrderStatus, PlaceOrderWait};
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::{GetOrderHistoryRequest, ListOrdersRequest};
use contracts::sandbox::v1::Behaviour;
use harness::eventually;
use harness::system::{System, order_of};
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

#[test]
fn an_order_is_delivered_refused_or_declined_and_everything_balances() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 10);
    system.stock("pen", 1);

    let delivered = system.place(order_of(&[("mug", 2), ("pen", 1)])).unwrap();
    assert_eq!(delivered.version, 1);
    let order = system
        .order(&delivered.order_id, delivered.version)
        .unwrap();
    assert!(
        order.version >= 1,
        "a read that asks for the version sees the order"
    );
    let order = system.wait_for_status(&delivered.order_id, OrderStatus::Delivered);
    assert_eq!((order.total, order.refunded, order.late), (450, 0, false));
    assert!(!order.tracking_number.is_empty());

    // One line among several is out of stock: the others are released.
    let refused = system.place(order_of(&[("mug", 3), ("pen", 1)])).unwrap();
    let order = system.wait_for_status(&refused.order_id, OrderStatus::Rejected);
    assert_eq!(order.end_reason(), EndReason::OutOfStock);

    let unavailable = system.place(order_of(&[("unicorn", 1)])).unwrap();
    let order = system.wait_for_status(&unavailable.order_id, OrderStatus::Rejected);
    assert_eq!(order.end_reason(), EndReason::OutOfStock);

    // The provider declines: reserved pieces are released.
    system.behave(Behaviour {
        decline_percent: 100,
        delivery_ms: 50,
        ..Default::default()
    });
    let declined = system.place(order_of(&[("mug", 4)])).unwrap();
    let order = system.wait_for_status(&declined.order_id, OrderStatus::Rejected);
    assert_eq!(order.end_reason(), EndReason::PaymentDeclined);

    eventually("nothing is reserved", || {
        let mug = system.stock_of("mug");
        let pen = system.stock_of("pen");
        (mug.reserved == 0 && pen.reserved == 0 && mug.deducted == 2 && pen.deducted == 1)
            .then_some(())
    });
    let mug = system.stock_of("mug");
    assert_eq!((mug.on_hand, mug.available, mug.received), (8, 8, 10));

    let history = system.block_on(QueryServiceClient::new(system.channel()).get_order_history(
        GetOrderHistoryRequest {
            order_id: delivered.order_id.clone(),
        },
    ));
    let versions: Vec<_> = history
        .unwrap()
        .into_inner()
        .events
        .into_iter()
        .map(|event| event.metadata.unwrap_or_default().aggregate_version)
        .collect();
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());

    let request = ListOrdersRequest {
        statuses: vec![OrderStatus::Rejected.into()],
        page_size: 2,
        ..Default::default()
    };
    let mut client = QueryServiceClient::new(system.channel());
    let first = system
        .block_on(client.list_orders(request.clone()))
        .unwrap()
        .into_inner();
    assert_eq!(first.orders.len(), 2);
    let rest = ListOrdersRequest {
        page_token: first.next_page_token,
        ..request
    };
    let second = system
        .block_on(client.list_orders(rest))
        .unwrap()
        .into_inner();
    assert_eq!(second.orders.len(), 1);
    assert!(second.next_page_token.is_empty());

    system.audit_at_rest(None);
    assert_states(&system);
    assert!(system.terminate("all").success(), "a drain ends well");
}

/// The admin port shows the partitions of each worker and of the projector: all that was written is processed.
fn assert_states(system: &System) {
    eventually("the states show that everything is processed", || {
        let states = system.states("all");
        let mut commands = 0;
        for service in Service::ALL {
            let worker = &states[service.name()];
            assert_eq!(worker["phase"], "running");
            for (partition, worker) in worker["partitions"].as_object()? {
                assert_eq!(worker["phase"], "running");
                commands += worker["committed"].as_i64()?;
                let projector = &states["projector"]["services"][service.name()];
                let projected = &projector["partitions"][partition];
                assert_eq!(
                    (&projector["parked_keys"], &projected["held_records"]),
                    (&json!(0), &json!(0))
                );
                // Both positions may lie before the marker of the last transaction.
                let behind = worker["events_end"].as_i64()? - projected["position"].as_i64()?;
                if behind > 1 {
                    return None;
                }
            }
        }
        assert_eq!(states["projector"]["phase"], "projecting");
        (commands > 0).then_some(())
    });
}

#[test]
fn an_order_with_nothing_to_pay_skips_payment() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("sample", 1);
    let mut request = order_of(&[("sample", 1)]);
    request.lines[0].unit_price = 0;
    let placed = system.place(request).unwrap();
    let order = system.wait_for_status(&placed.order_id, OrderStatus::Delivered);
    assert_eq!(order.total, 0);
    system.audit_at_rest(None);
}

#[test]
fn the_same_order_id_gives_the_same_answer_and_another_body_is_refused() {
    let mut system = System::new();
    system.start_until_ready("all");
    system.stock("mug", 10);
    let request = order_of(&[("mug", 1)]);
    let first = system.place(request.clone()).unwrap();
    system.wait_for_status(&first.order_id, OrderStatus::Delivered);
    let repeated = system.place(request.clone()).unwrap();
    assert_eq!(repeated.order_id, first.order_id);
    assert_eq!(
        repeated.status(),
        OrderStatus::Delivered,
        "the answer tells what has become of it"
    );

    let mut other = request.clone();
    other.lines[0].quantity = 2;
    assert_eq!(system.place(other).unwrap_err().code(), Code::AlreadyExists);

    let mut durable = order_of(&[("mug", 1)]);
    durable.wait = PlaceOrderWait::Durable.into();
    let receipt = system.place(durable).unwrap();
    assert_eq!(receipt.version, 0, "a receipt has no version");
    system.wait_for_status(&receipt.order_id, OrderStatus::Delivered);

    // An old id that was never used.
    let mut stale = order_of(&[("mug", 1)]);
    let long_ago = uuid::Timestamp::from_unix(uuid::NoContext, 1_700_000_000, 0);
    stale.order_id = Uuid::new_v7(long_ago).to_string();
    let status = system.place(stale).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");

    eventually("two mugs are gone", || {
        (system.stock_of("mug").deducted == 2).then_some(())
    });
    system.audit_at_rest(None);
}
