//! A client and the processor that answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contracts::inventory::v1::stock_outcome::Outcome;
use contracts::inventory::v1::{AdjustStock, stock_command};
use contracts::{Inventory, Service};
use engine::effects::Limits;
use engine::{Call, CallError, CommandClient, Metrics, Processor};
use harness::{KafkaFixture, NoEffects, eventually};
use inventory::StockRules;

use super::inventory_helpers::{frequent_checkpoints, fresh_id};

fn call(sku: &str, delta: i64) -> Call<Inventory> {
    let adjust = AdjustStock {
        adjustment_id: fresh_id(),
        delta,
    };
    Call {
        aggregate_id: sku.into(),
        command: stock_command::Command::AdjustStock(adjust),
        actor: "test".into(),
    }
}

#[test]
fn a_caller_receives_its_outcome() {
    let fixture = KafkaFixture::new(2);
    let stopped = Arc::new(AtomicBool::new(false));
    let is_stopped = || {
        let stopped = Arc::clone(&stopped);
        move || stopped.load(Ordering::Relaxed)
    };
    let client = CommandClient::<Inventory>::new(
        Arc::clone(&fixture.cluster),
        fixture.sender(),
        fixture.codec.clone(),
    );
    let call_now = |call, deadline| fixture.runtime.block_on(client.call(call, deadline));
    let deaf = call_now(call("sku", 1), Duration::from_secs(1)).unwrap_err();
    assert!(matches!(deaf, CallError::NotReady), "{deaf}");

    std::thread::scope(|scope| {
        let listening = scope.spawn(|| client.listen(is_stopped()));
        eventually("the client is subscribed", || {
            client.is_ready().then_some(())
        });
        let deadline = Duration::from_millis(200);
        let unanswered = call_now(call("sku", 1), deadline).unwrap_err();
        assert!(
            matches!(unanswered, CallError::Deadline),
            "no processor runs: {unanswered}"
        );

        let processor = Processor {
            rules: StockRules::default(),
            handler: NoEffects,
            cluster: Arc::clone(&fixture.cluster),
            codec: fixture.codec.clone(),
            sender: fixture.sender(),
            instance: "one".into(),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            settings: frequent_checkpoints(),
            limits: Limits::default(),
        };
        let runtime = fixture.runtime.handle();
        let processing = scope.spawn(move || processor.run(runtime, is_stopped(), |_| ()));
        let deadline = Duration::from_secs(30);
        let answer = call_now(call("sku", 5), deadline).unwrap();
        let Outcome::Accepted(accepted) = answer.outcome else {
            panic!("{answer:?}")
        };
        assert_eq!(
            accepted.on_hand, 6,
            "the unanswered call was carried out too"
        );
        assert_eq!(answer.version, 2);
        assert_eq!(answer.partition, fixture.cluster.partition_of(b"sku"));

        let refused = call_now(call("sku", -7), deadline).unwrap();
        assert!(
            matches!(refused.outcome, Outcome::Rejection(_)),
            "{refused:?}"
        );
        assert_eq!(refused.version, 2, "a rejection changes nothing");
        let end = fixture.end(
            Service::Inventory,
            contracts::Topic::Events,
            refused.partition,
        );
        assert!(0 < refused.events_offset && refused.events_offset <= end);

        stopped.store(true, Ordering::Relaxed);
        processing.join().unwrap().unwrap();
        listening.join().unwrap().unwrap();
    });
}
