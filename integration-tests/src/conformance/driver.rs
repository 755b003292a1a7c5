//! Drives the log of one member, and reads what is visible.

use contracts::{Service, Topic};
use engine::log::{Input, Log, Output, Partition, PartitionWrites, Progress, Signal};

use super::{LogEnvironment, PARTITIONS, POLL_TIMEOUT, SERVICE};
use crate::eventually;

/// Polls two members, the first of which owns every partition, until the second has one. Returns that partition.
pub(super) fn share_partitions(one: &mut impl Log, two: &mut impl Log) -> Partition {
    let mut assigned = Vec::new();
    eventually("the partitions are shared", || {
        poll_silent(one);
        for signal in poll_silent(two) {
            if let Signal::Assigned(partitions) = signal {
                assigned.extend(partitions);
            }
        }
        (!assigned.is_empty()).then_some(())
    });
    assigned[0]
}

/// Polls until every partition is assigned.
pub(super) fn await_assignment(log: &mut impl Log) {
    assert!(
        log.generation().is_none(),
        "there is no generation before the group is joined"
    );
    let mut assigned = Vec::new();
    eventually("the group is joined", || {
        for signal in poll_silent(log) {
            if let Signal::Assigned(partitions) = signal {
                assigned.extend(partitions);
            }
        }
        (assigned.len() == usize::from(PARTITIONS)).then_some(())
    });
}

/// Polls a log none of whose partitions is started.
pub(super) fn poll_silent(log: &mut impl Log) -> Vec<Signal> {
    let mut inputs = Vec::new();
    let signals = log
        .poll(100, POLL_TIMEOUT, &mut inputs)
        .expect("the log works");
    assert!(
        inputs.is_empty(),
        "no partition has been started: {inputs:?}"
    );
    signals
}

/// Polls until exactly `count` records are delivered.
pub(super) fn poll_records(log: &mut impl Log, count: usize) -> Vec<String> {
    let mut inputs = Vec::new();
    eventually("records are delivered", || {
        log.poll(count - inputs.len(), POLL_TIMEOUT, &mut inputs)
            .expect("the log works");
        (inputs.len() == count).then_some(())
    });
    payloads(&inputs)
}

/// Polls until the reported position is `end`, and asserts that it never exceeds it. Returns the delivered records.
pub(super) fn poll_until_position(log: &mut impl Log, end: i64) -> Vec<Input> {
    let mut inputs = Vec::new();
    eventually("the position is known", || {
        let signals = log
            .poll(100, POLL_TIMEOUT, &mut inputs)
            .expect("the log works");
        signals.into_iter().find_map(|signal| match signal {
            Signal::Reached {
                partition: 0,
                offset,
            } => {
                assert!(offset <= end, "{offset} is past the end, {end}");
                (offset == end).then_some(())
            }
            _ => None,
        })
    });
    inputs
}

pub(super) fn read_all(log: &mut impl Log) -> Vec<Input> {
    let mut inputs = Vec::new();
    eventually("everything is read", || {
        (log.read(POLL_TIMEOUT, &mut inputs).expect("the log works") == Progress::Done)
            .then_some(())
    });
    inputs
}

pub(super) fn commit_one(log: &mut impl Log, partition: Partition, offset: i64, payload: &str) {
    let generation = log.generation().expect("it has joined");
    let writes = PartitionWrites {
        partition,
        offset,
        outputs: vec![event(partition, payload)],
    };
    log.commit(&generation, vec![writes]).expect("it commits");
}

/// The visible events of partition 0, once there are `count`.
pub(super) fn visible_events(environment: &impl LogEnvironment, count: usize) -> Vec<String> {
    eventually("the events are visible", || {
        let visible = environment.visible(SERVICE, Topic::Events, 0);
        (visible.len() >= count).then_some(visible)
    })
}

pub(super) fn event(partition: Partition, payload: &str) -> Output {
    output(SERVICE, Topic::Events, partition, payload)
}

pub(super) fn output(
    service: Service,
    topic: Topic,
    partition: Partition,
    payload: &str,
) -> Output {
    Output {
        service,
        topic,
        partition,
        key: Some(b"key".to_vec()),
        payload: Some(payload.as_bytes().to_vec()),
        headers: Vec::new(),
    }
}

pub(super) fn payloads(inputs: &[Input]) -> Vec<String> {
    inputs
        .iter()
        .map(|input| {
            String::from_utf8(input.payload.clone().unwrap_or_default()).expect("a test wrote it")
        })
        .collect()
}
