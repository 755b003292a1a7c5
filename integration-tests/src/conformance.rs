//! What every implementation of [`Log`] must do. Each function is one case, run on a fresh [`World`].

use std::time::Duration;

use contracts::{Service, Topic};
use engine::log::{Failure, Input, Log, Output, Partition, PartitionWrites, Progress, Signal};

use crate::eventually;
use crate::fault_injecting_log::too_large;

/// Makes a test of every case, each on a world of its own: `$world` is an expression.
#[macro_export]
macro_rules! conformance {
    ($world:expr) => {
        $crate::conformance! { $world =>
            an_assigned_partition_is_silent_until_it_is_started,
            a_partition_can_be_paused_and_started_again,
            a_commit_makes_everything_visible,
            an_abort_leaves_nothing_behind,
            a_stale_generation_is_refused,
            a_generation_that_is_over_does_not_vouch_for_what_is_kept,
            a_member_that_comes_back_moves_nothing,
            a_zombie_is_fenced,
            a_read_passes_what_was_aborted,
            a_read_waits_for_an_open_transaction,
            an_open_transaction_holds_back_what_stands_behind_it,
            the_position_passes_markers,
        }
    };
    ($world:expr => $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::$case(&$world);
            }
        )*
    };
}

/// The service that the cases run as.
pub const SERVICE: Service = Service::Inventory;
/// Whom its messages go to.
pub const NEIGHBOUR: Service = Service::Orders;
/// Partitions that the cases need.
pub const PARTITIONS: u16 = 2;

const A_MOMENT: Duration = Duration::from_millis(50);

/// A log's surroundings: other writers, and a reader that sees what is committed.
pub trait World {
    /// The implementation.
    type Log: Log;
    /// Somebody else's open transaction.
    type Open: Open;

    /// The log of a worker that joins the group under this name.
    fn join(&self, instance: &str) -> Self::Log;
    /// Appends a record outside any transaction.
    fn append(&self, topic: Topic, partition: Partition, payload: &str);
    /// Somebody else begins a transaction.
    fn begin(&self) -> Self::Open;
    /// Payloads that a reader of committed records sees, in order.
    fn visible(&self, service: Service, topic: Topic, partition: Partition) -> Vec<String>;
    /// The high watermark, once the markers of all transactions are there.
    fn end(&self, topic: Topic, partition: Partition) -> i64;
}

/// Somebody else's open transaction.
pub trait Open {
    /// Appends a record to it.
    fn append(&self, topic: Topic, partition: Partition, payload: &str);
    /// Ends it well.
    fn commit(self);
    /// Ends it badly.
    fn abort(self);
}

/// Nothing is delivered of an assigned partition until it is started, and then everything from there on, in order.
pub fn an_assigned_partition_is_silent_until_it_is_started(world: &impl World) {
    for payload in ["a", "b", "c"] {
        world.append(Topic::Commands, 0, payload);
    }
    let mut log = world.join("one");
    join(&mut log);
    log.start(1, 0).expect("the log works");
    world.append(Topic::Commands, 1, "other");
    assert_eq!(
        take(&mut log, 1),
        ["other"],
        "only what was started is delivered"
    );
    log.start(0, 1).expect("the log works");
    assert_eq!(take(&mut log, 2), ["b", "c"]);
}

/// Starting again voids what was delivered, and a paused partition is silent.
pub fn a_partition_can_be_paused_and_started_again(world: &impl World) {
    for payload in ["a", "b", "c"] {
        world.append(Topic::Commands, 0, payload);
    }
    let mut log = world.join("one");
    join(&mut log);
    log.start(0, 0).expect("the log works");
    assert_eq!(take(&mut log, 1), ["a"]);
    log.start(0, 0).expect("the log works");
    assert_eq!(
        take(&mut log, 2),
        ["a", "b"],
        "from the start, nothing twice"
    );
    log.pause(0).expect("the log works");
    log.start(1, 0).expect("the log works");
    world.append(Topic::Commands, 1, "other");
    assert_eq!(take(&mut log, 1), ["other"], "what is paused is silent");
    log.start(0, 1).expect("the log works");
    assert_eq!(take(&mut log, 2), ["b", "c"]);
}

/// Events, messages, outcomes and the offset become visible, or nothing.
pub fn a_commit_makes_everything_visible(world: &impl World) {
    let mut log = world.join("one");
    join(&mut log);
    assert_eq!(log.committed(0).expect("the log works"), None);
    let generation = log.generation().expect("it has joined");
    let shares = vec![
        PartitionWrites {
            partition: 0,
            offset: 3,
            outputs: vec![
                event(0, "first"),
                event(0, "second"),
                output(NEIGHBOUR, Topic::Commands, 1, "message"),
                output(SERVICE, Topic::Outcomes, 0, "outcome"),
            ],
        },
        PartitionWrites {
            partition: 1,
            offset: 7,
            outputs: Vec::new(),
        },
    ];
    let appended = log.commit(&generation, shares).expect("it commits");
    let [appended] = appended[..] else {
        panic!("one partition has new events: {appended:?}")
    };
    assert_eq!((appended.partition, appended.events_end), (0, 2));
    assert_eq!(log.committed(0).expect("the log works"), Some(3));
    assert_eq!(log.committed(1).expect("the log works"), Some(7));
    eventually("everything is visible", || {
        (world.visible(SERVICE, Topic::Events, 0) == ["first", "second"]
            && world.visible(NEIGHBOUR, Topic::Commands, 1) == ["message"]
            && world.visible(SERVICE, Topic::Outcomes, 0) == ["outcome"])
        .then_some(())
    });
}

/// An abort leaves nothing behind, and the log goes on.
pub fn an_abort_leaves_nothing_behind(world: &impl World) {
    let mut log = world.join("one");
    join(&mut log);
    let generation = log.generation().expect("it has joined");
    commit_one(&mut log, 0, 1, "before");

    let good = event(0, "aborted");
    let bad = too_large(&good);
    let share = PartitionWrites {
        partition: 0,
        offset: 2,
        outputs: vec![good, bad],
    };
    let failure = log
        .commit(&generation, vec![share])
        .expect_err("a record is too large");
    if let Failure::Unclear(_) = failure {
        log.recreate().expect("the log works");
    } else {
        assert!(matches!(failure, Failure::Aborted(_)), "{failure}");
    }
    assert_eq!(log.committed(0).expect("the log works"), Some(1));
    let generation = log.generation().expect("it has joined");
    let share = PartitionWrites {
        partition: 0,
        offset: 2,
        outputs: vec![event(0, "after")],
    };
    log.commit(&generation, vec![share]).expect("it commits");
    assert_eq!(log.committed(0).expect("the log works"), Some(2));
    assert_eq!(visible_events(world, 2), ["before", "after"]);
}

/// A member that the group has gone on without writes nothing.
pub fn a_stale_generation_is_refused(world: &impl World) {
    let mut one = world.join("one");
    join(&mut one);
    let stale = one.generation().expect("it has joined");
    commit_one(&mut one, 0, 1, "before");
    commit_one(&mut one, 1, 1, "before");

    let mut two = world.join("two");
    let (mut left, mut came) = (Vec::new(), Vec::new());
    eventually("the partitions are shared", || {
        for signal in poll(&mut one) {
            if let Signal::Revoked(partitions) = signal {
                left.extend(partitions);
            }
        }
        for signal in poll(&mut two) {
            if let Signal::Assigned(partitions) = signal {
                came.extend(partitions);
            }
        }
        (!came.is_empty() && left == came).then_some(())
    });
    let gone = came[0];
    let share = PartitionWrites {
        partition: gone,
        offset: 9,
        outputs: vec![event(gone, "stale")],
    };
    let failure = one
        .commit(&stale, vec![share])
        .expect_err("the generation is over");
    assert!(matches!(failure, Failure::Aborted(_)), "{failure}");
    assert!(
        world.end(Topic::Events, gone) > 2,
        "it was written before it was refused"
    );
    assert_eq!(two.committed(gone).expect("the log works"), Some(1));

    commit_one(&mut two, gone, 2, "new owner");
    // It vouches again once it has been told of the generation that came with the other's partitions.
    eventually("the owner that stays commits", || {
        assert!(
            poll(&mut one)
                .iter()
                .all(|signal| !matches!(signal, Signal::Revoked(_)))
        );
        let share = PartitionWrites {
            partition: 1 - gone,
            offset: 2,
            outputs: vec![event(1 - gone, "still owner")],
        };
        let generation = one.generation()?;
        one.commit(&generation, vec![share]).ok()
    });
    for partition in [gone, 1 - gone] {
        let expected = if partition == gone {
            "new owner"
        } else {
            "still owner"
        };
        eventually("both owners' events are visible", || {
            (world.visible(SERVICE, Topic::Events, partition) == ["before", expected]).then_some(())
        });
    }
}

/// Whoever comes under the same name ends its predecessor.
pub fn a_zombie_is_fenced(world: &impl World) {
    let mut zombie = world.join("one");
    join(&mut zombie);
    let generation = zombie.generation().expect("it has joined");
    commit_one(&mut zombie, 0, 1, "before");

    let mut successor = world.join("one");
    let share = PartitionWrites {
        partition: 0,
        offset: 2,
        outputs: vec![event(0, "zombie")],
    };
    let failure = zombie
        .commit(&generation, vec![share])
        .expect_err("it has been replaced");
    assert!(matches!(failure, Failure::Fenced(_)), "{failure}");

    join(&mut successor);
    assert_eq!(successor.committed(0).expect("the log works"), Some(1));
    commit_one(&mut successor, 0, 2, "successor");
    assert_eq!(visible_events(world, 2), ["before", "successor"]);
    eventually("the zombie knows", || {
        let mut inputs = Vec::new();
        (zombie.poll(1, A_MOMENT, &mut inputs).is_err() || zombie.is_member().is_err())
            .then_some(())
    });
}

/// A bounded read returns what is committed below the bound, also behind aborted records and markers.
pub fn a_read_passes_what_was_aborted(world: &impl World) {
    for round in 0..3 {
        let aborted = world.begin();
        aborted.append(Topic::Events, 0, "aborted");
        aborted.abort();
        let committed = world.begin();
        committed.append(Topic::Events, 0, &format!("{round}a"));
        committed.append(Topic::Events, 0, &format!("{round}b"));
        committed.commit();
    }
    let last = world.begin();
    last.append(Topic::Events, 0, "aborted");
    last.abort();

    let mut log = world.join("one");
    join(&mut log);
    let ends = log.ends(Topic::Events, 0).expect("the log works");
    assert_eq!(ends.low, 0);
    assert!(
        ends.high >= 6 + 4,
        "records of aborted transactions count: {ends:?}"
    );
    log.open(Topic::Events, 0, ends.low, ends.high)
        .expect("the log works");
    let inputs = read(&mut log);
    assert_eq!(payloads(&inputs), ["0a", "0b", "1a", "1b", "2a", "2b"]);

    let from = inputs[3].offset;
    log.open(Topic::Events, 0, from, ends.high)
        .expect("the log works");
    assert_eq!(
        payloads(&read(&mut log)),
        ["1b", "2a", "2b"],
        "from the middle"
    );
    log.open(Topic::Events, 0, ends.high, ends.high)
        .expect("the log works");
    assert!(read(&mut log).is_empty(), "nothing lies behind the end");
}

/// A bounded read is not done while a transaction is open below its bound, and has its records when it commits.
pub fn a_read_waits_for_an_open_transaction(world: &impl World) {
    world.append(Topic::Events, 0, "before");
    let open = world.begin();
    open.append(Topic::Events, 0, "late");
    world.append(Topic::Events, 0, "after");

    let mut log = world.join("one");
    join(&mut log);
    let ends = log.ends(Topic::Events, 0).expect("the log works");
    log.open(Topic::Events, 0, 0, ends.high)
        .expect("the log works");
    let mut inputs = Vec::new();
    for _ in 0..20 {
        let progress = log
            .read(Duration::from_millis(1), &mut inputs)
            .expect("the log works");
        assert_eq!(progress, Progress::More, "a transaction is open");
    }
    open.commit();
    inputs.extend(read(&mut log));
    assert_eq!(payloads(&inputs), ["before", "late", "after"]);
}

/// At the end of a partition the real position is told: behind markers and aborted records, but never behind a record
/// not yet delivered.
pub fn the_position_passes_markers(world: &impl World) {
    world.append(Topic::Commands, 0, "command");
    let aborted = world.begin();
    aborted.append(Topic::Commands, 0, "aborted");
    aborted.abort();
    let mut log = world.join("one");
    join(&mut log);
    log.start(0, 0).expect("the log works");
    assert_eq!(take(&mut log, 1), ["command"]);

    let end = world.end(Topic::Commands, 0);
    assert!(
        end >= 3,
        "an aborted record and a marker stand behind the command"
    );
    assert!(
        reached(&mut log, end).is_empty(),
        "nothing is delivered behind the command"
    );

    let late = world.begin();
    late.append(Topic::Commands, 0, "late");
    late.commit();
    let after_late = world.end(Topic::Commands, 0);
    assert_eq!(
        take(&mut log, 1),
        ["late"],
        "a record is delivered, not passed over"
    );
    assert!(
        reached(&mut log, after_late).is_empty(),
        "nothing is delivered behind the late one"
    );
}

/// A generation that is over vouches for nothing, not even for what its member keeps.
pub fn a_generation_that_is_over_does_not_vouch_for_what_is_kept(world: &impl World) {
    let mut one = world.join("one");
    join(&mut one);
    let stale = one.generation().expect("it has joined");
    commit_one(&mut one, 0, 1, "before");
    commit_one(&mut one, 1, 1, "before");
    let mut two = world.join("two");
    let kept = 1 - share(&mut one, &mut two);

    let stolen = PartitionWrites {
        partition: kept,
        offset: 9,
        outputs: vec![event(kept, "stale")],
    };
    let failure = one
        .commit(&stale, vec![stolen])
        .expect_err("the generation is over");
    assert!(matches!(failure, Failure::Aborted(_)), "{failure}");
    assert_eq!(one.committed(kept).expect("the log works"), Some(1));
}

/// Who comes back under its name has the same partitions again, and the others do not notice.
pub fn a_member_that_comes_back_moves_nothing(world: &impl World) {
    let mut one = world.join("one");
    join(&mut one);
    let mut two = world.join("two");
    let moved = share(&mut one, &mut two);
    // All have heard of the last generation.
    eventually("both vouch", || {
        poll(&mut one);
        poll(&mut two);
        let first = one.generation()?;
        let second = two.generation()?;
        let empty = |partition| PartitionWrites {
            partition,
            offset: 1,
            outputs: Vec::new(),
        };
        (one.commit(&first, vec![empty(1 - moved)]).is_ok()
            && two.commit(&second, vec![empty(moved)]).is_ok())
        .then_some(())
    });

    let generation = two.generation().expect("it has joined");
    let mut again = world.join("one");
    let mut came = Vec::new();
    eventually("its place is given back", || {
        for signal in poll(&mut again) {
            if let Signal::Assigned(partitions) = signal {
                came.extend(partitions);
            }
        }
        (!came.is_empty()).then_some(())
    });
    assert_eq!(came, [1 - moved]);
    let share = PartitionWrites {
        partition: moved,
        offset: 2,
        outputs: Vec::new(),
    };
    two.commit(&generation, vec![share])
        .expect("its generation goes on");
}

/// Commands behind an open transaction are delivered when it has ended, and the position waits with them.
pub fn an_open_transaction_holds_back_what_stands_behind_it(world: &impl World) {
    world.append(Topic::Commands, 0, "before");
    let open = world.begin();
    open.append(Topic::Commands, 0, "open");
    world.append(Topic::Commands, 0, "behind");
    let mut log = world.join("one");
    join(&mut log);
    log.start(0, 0).expect("the log works");
    assert_eq!(take(&mut log, 1), ["before"]);
    let mut inputs = Vec::new();
    for _ in 0..5 {
        let signals = log.poll(100, A_MOMENT, &mut inputs).expect("the log works");
        let beyond =
            |signal: &Signal| matches!(signal, Signal::Reached { offset, .. } if *offset > 1);
        assert!(!signals.iter().any(beyond), "{signals:?}");
    }
    assert!(inputs.is_empty(), "the transaction is open: {inputs:?}");
    open.commit();
    assert_eq!(take(&mut log, 2), ["open", "behind"]);
}

/// Polls two members, one of which has everything, until the other has its part; which partition that is.
fn share(one: &mut impl Log, two: &mut impl Log) -> Partition {
    let mut came = Vec::new();
    eventually("the partitions are shared", || {
        poll(one);
        for signal in poll(two) {
            if let Signal::Assigned(partitions) = signal {
                came.extend(partitions);
            }
        }
        (!came.is_empty()).then_some(())
    });
    came[0]
}

/// Polls until every partition is assigned.
fn join(log: &mut impl Log) {
    assert!(
        log.generation().is_none(),
        "nothing vouches for a poll before the group is joined"
    );
    let mut assigned = Vec::new();
    eventually("the group is joined", || {
        for signal in poll(log) {
            if let Signal::Assigned(partitions) = signal {
                assigned.extend(partitions);
            }
        }
        (assigned.len() == usize::from(PARTITIONS)).then_some(())
    });
}

/// Polls a log whose partitions must be silent.
fn poll(log: &mut impl Log) -> Vec<Signal> {
    let mut inputs = Vec::new();
    let signals = log.poll(100, A_MOMENT, &mut inputs).expect("the log works");
    assert!(
        inputs.is_empty(),
        "no partition has been started: {inputs:?}"
    );
    signals
}

/// Polls until that many records have come, not more.
fn take(log: &mut impl Log, count: usize) -> Vec<String> {
    let mut inputs = Vec::new();
    eventually("records are delivered", || {
        log.poll(count - inputs.len(), A_MOMENT, &mut inputs)
            .expect("the log works");
        (inputs.len() == count).then_some(())
    });
    payloads(&inputs)
}

/// Polls until the position is `end`, never beyond; what is delivered meanwhile.
fn reached(log: &mut impl Log, end: i64) -> Vec<Input> {
    let mut inputs = Vec::new();
    eventually("the position is known", || {
        let signals = log.poll(100, A_MOMENT, &mut inputs).expect("the log works");
        signals.into_iter().find_map(|signal| match signal {
            Signal::Reached {
                partition: 0,
                offset,
            } => {
                assert!(offset <= end, "{offset} lies behind the end, {end}");
                (offset == end).then_some(())
            }
            _ => None,
        })
    });
    inputs
}

fn read(log: &mut impl Log) -> Vec<Input> {
    let mut inputs = Vec::new();
    eventually("everything is read", || {
        (log.read(A_MOMENT, &mut inputs).expect("the log works") == Progress::Done).then_some(())
    });
    inputs
}

fn commit_one(log: &mut impl Log, partition: Partition, offset: i64, payload: &str) {
    let generation = log.generation().expect("it has joined");
    let share = PartitionWrites {
        partition,
        offset,
        outputs: vec![event(partition, payload)],
    };
    log.commit(&generation, vec![share]).expect("it commits");
}

/// The events of partition 0, once there are `count`.
fn visible_events(world: &impl World, count: usize) -> Vec<String> {
    eventually("the events are visible", || {
        let visible = world.visible(SERVICE, Topic::Events, 0);
        (visible.len() >= count).then_some(visible)
    })
}

fn event(partition: Partition, payload: &str) -> Output {
    output(SERVICE, Topic::Events, partition, payload)
}

fn output(service: Service, topic: Topic, partition: Partition, payload: &str) -> Output {
    Output {
        service,
        topic,
        partition,
        key: Some(b"key".to_vec()),
        payload: Some(payload.as_bytes().to_vec()),
        headers: Vec::new(),
    }
}

fn payloads(inputs: &[Input]) -> Vec<String> {
    inputs
        .iter()
        .map(|input| {
            String::from_utf8(input.payload.clone().unwrap_or_default()).expect("a test wrote it")
        })
        .collect()
}
