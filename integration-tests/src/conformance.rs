//! The conformance suite of [`Log`]. Each function is one case and runs on a fresh [`LogEnvironment`].

mod driver;

use std::time::Duration;

use contracts::{Service, Topic};
use engine::log::{Failure, Log, Partition, PartitionWrites, Progress, Signal};

use self::driver::{
    await_assignment, commit_one, event, output, payloads, poll_records, poll_silent,
    poll_until_position, read_all, share_partitions, visible_events,
};
use crate::eventually;
use crate::fault_injecting_log::too_large;

/// Makes a test of every case. `$environment` is an expression that creates a fresh environment for each.
#[macro_export]
macro_rules! conformance {
    ($environment:expr) => {
        $crate::conformance! { $environment =>
            an_assigned_partition_delivers_nothing_until_it_is_started,
            a_partition_can_be_paused_and_started_again,
            a_commit_makes_everything_visible,
            an_abort_discards_everything,
            a_stale_generation_is_refused,
            a_stale_generation_is_refused_for_kept_partitions,
            a_returning_static_member_keeps_its_partitions,
            a_zombie_is_fenced,
            a_read_skips_aborted_records,
            a_read_waits_for_an_open_transaction,
            an_open_transaction_holds_back_later_records,
            the_position_advances_past_markers,
        }
    };
    ($environment:expr => $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::$case(&$environment);
            }
        )*
    };
}

/// The service that the worker under test belongs to.
pub const SERVICE: Service = Service::Inventory;
/// The service that receives the worker's messages.
pub const OTHER_SERVICE: Service = Service::Orders;
/// Number of partitions that the cases need.
pub const PARTITIONS: u16 = 2;

const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// What surrounds a log under test: other writers, and a reader of committed records.
pub trait LogEnvironment {
    /// The implementation under test.
    type Log: Log;
    /// An open transaction of another producer.
    type Transaction: ExternalTransaction;

    /// Creates the log of a worker that joins the group as this instance.
    fn join(&self, instance: &str) -> Self::Log;
    /// Appends a record outside any transaction.
    fn append(&self, topic: Topic, partition: Partition, payload: &str);
    /// Begins a transaction of another producer.
    fn begin(&self) -> Self::Transaction;
    /// Payloads of the committed records of a partition, in order.
    fn visible(&self, service: Service, topic: Topic, partition: Partition) -> Vec<String>;
    /// The high watermark, once the markers of all transactions are written.
    fn end(&self, topic: Topic, partition: Partition) -> i64;
}

/// An open transaction of another producer.
pub trait ExternalTransaction {
    /// Appends a record to the transaction.
    fn append(&self, topic: Topic, partition: Partition, payload: &str);
    /// Commits the transaction.
    fn commit(self);
    /// Aborts the transaction.
    fn abort(self);
}

/// An assigned partition delivers nothing until it is started, then everything from the given offset, in order.
pub fn an_assigned_partition_delivers_nothing_until_it_is_started(
    environment: &impl LogEnvironment,
) {
    for payload in ["a", "b", "c"] {
        environment.append(Topic::Commands, 0, payload);
    }
    let mut log = environment.join("one");
    await_assignment(&mut log);
    log.start(1, 0).expect("the log works");
    environment.append(Topic::Commands, 1, "other");
    assert_eq!(
        poll_records(&mut log, 1),
        ["other"],
        "only what was started is delivered"
    );
    log.start(0, 1).expect("the log works");
    assert_eq!(poll_records(&mut log, 2), ["b", "c"]);
}

/// A second start discards what was delivered. A paused partition delivers nothing.
pub fn a_partition_can_be_paused_and_started_again(environment: &impl LogEnvironment) {
    for payload in ["a", "b", "c"] {
        environment.append(Topic::Commands, 0, payload);
    }
    let mut log = environment.join("one");
    await_assignment(&mut log);
    log.start(0, 0).expect("the log works");
    assert_eq!(poll_records(&mut log, 1), ["a"]);
    log.start(0, 0).expect("the log works");
    assert_eq!(
        poll_records(&mut log, 2),
        ["a", "b"],
        "from the start, nothing twice"
    );
    log.pause(0).expect("the log works");
    log.start(1, 0).expect("the log works");
    environment.append(Topic::Commands, 1, "other");
    assert_eq!(
        poll_records(&mut log, 1),
        ["other"],
        "a paused partition delivers nothing"
    );
    log.start(0, 1).expect("the log works");
    assert_eq!(poll_records(&mut log, 2), ["b", "c"]);
}

/// Events, messages, outcomes and the offset become visible together.
pub fn a_commit_makes_everything_visible(environment: &impl LogEnvironment) {
    let mut log = environment.join("one");
    await_assignment(&mut log);
    assert_eq!(log.committed(0).expect("the log works"), None);
    let generation = log.generation().expect("it has joined");
    let writes = vec![
        PartitionWrites {
            partition: 0,
            offset: 3,
            outputs: vec![
                event(0, "first"),
                event(0, "second"),
                output(OTHER_SERVICE, Topic::Commands, 1, "message"),
                output(SERVICE, Topic::Outcomes, 0, "outcome"),
            ],
        },
        PartitionWrites {
            partition: 1,
            offset: 7,
            outputs: Vec::new(),
        },
    ];
    let appended = log.commit(&generation, writes).expect("it commits");
    let [appended] = appended[..] else {
        panic!("one partition has new events: {appended:?}")
    };
    assert_eq!((appended.partition, appended.events_end), (0, 2));
    assert_eq!(log.committed(0).expect("the log works"), Some(3));
    assert_eq!(log.committed(1).expect("the log works"), Some(7));
    eventually("everything is visible", || {
        (environment.visible(SERVICE, Topic::Events, 0) == ["first", "second"]
            && environment.visible(OTHER_SERVICE, Topic::Commands, 1) == ["message"]
            && environment.visible(SERVICE, Topic::Outcomes, 0) == ["outcome"])
        .then_some(())
    });
}

/// An aborted transaction leaves nothing visible, and the log remains usable.
pub fn an_abort_discards_everything(environment: &impl LogEnvironment) {
    let mut log = environment.join("one");
    await_assignment(&mut log);
    let generation = log.generation().expect("it has joined");
    commit_one(&mut log, 0, 1, "before");

    let good = event(0, "aborted");
    let bad = too_large(&good);
    let writes = PartitionWrites {
        partition: 0,
        offset: 2,
        outputs: vec![good, bad],
    };
    let failure = log
        .commit(&generation, vec![writes])
        .expect_err("a record is too large");
    if let Failure::Unclear(_) = failure {
        log.recreate().expect("the log works");
    } else {
        assert!(matches!(failure, Failure::Aborted(_)), "{failure}");
    }
    assert_eq!(log.committed(0).expect("the log works"), Some(1));
    let generation = log.generation().expect("it has joined");
    let writes = PartitionWrites {
        partition: 0,
        offset: 2,
        outputs: vec![event(0, "after")],
    };
    log.commit(&generation, vec![writes]).expect("it commits");
    assert_eq!(log.committed(0).expect("the log works"), Some(2));
    assert_eq!(visible_events(environment, 2), ["before", "after"]);
}

/// A member with a stale generation commits nothing.
pub fn a_stale_generation_is_refused(environment: &impl LogEnvironment) {
    let mut one = environment.join("one");
    await_assignment(&mut one);
    let stale = one.generation().expect("it has joined");
    commit_one(&mut one, 0, 1, "before");
    commit_one(&mut one, 1, 1, "before");

    let mut two = environment.join("two");
    let (mut revoked, mut assigned) = (Vec::new(), Vec::new());
    eventually("the partitions are shared", || {
        for signal in poll_silent(&mut one) {
            if let Signal::Revoked(partitions) = signal {
                revoked.extend(partitions);
            }
        }
        for signal in poll_silent(&mut two) {
            if let Signal::Assigned(partitions) = signal {
                assigned.extend(partitions);
            }
        }
        (!assigned.is_empty() && revoked == assigned).then_some(())
    });
    let moved = assigned[0];
    let writes = PartitionWrites {
        partition: moved,
        offset: 9,
        outputs: vec![event(moved, "stale")],
    };
    let failure = one
        .commit(&stale, vec![writes])
        .expect_err("the generation is over");
    assert!(matches!(failure, Failure::Aborted(_)), "{failure}");
    assert!(
        environment.end(Topic::Events, moved) > 2,
        "it was written before it was refused"
    );
    assert_eq!(two.committed(moved).expect("the log works"), Some(1));

    commit_one(&mut two, moved, 2, "new owner");
    // The member can commit again once it has received the generation of the rebalance.
    eventually("the remaining owner commits", || {
        assert!(
            poll_silent(&mut one)
                .iter()
                .all(|signal| !matches!(signal, Signal::Revoked(_)))
        );
        let writes = PartitionWrites {
            partition: 1 - moved,
            offset: 2,
            outputs: vec![event(1 - moved, "still owner")],
        };
        let generation = one.generation()?;
        one.commit(&generation, vec![writes]).ok()
    });
    for partition in [moved, 1 - moved] {
        let expected = if partition == moved {
            "new owner"
        } else {
            "still owner"
        };
        eventually("both owners' events are visible", || {
            (environment.visible(SERVICE, Topic::Events, partition) == ["before", expected])
                .then_some(())
        });
    }
}

/// A new member with the same instance name fences its predecessor.
pub fn a_zombie_is_fenced(environment: &impl LogEnvironment) {
    let mut zombie = environment.join("one");
    await_assignment(&mut zombie);
    let generation = zombie.generation().expect("it has joined");
    commit_one(&mut zombie, 0, 1, "before");

    let mut successor = environment.join("one");
    let writes = PartitionWrites {
        partition: 0,
        offset: 2,
        outputs: vec![event(0, "zombie")],
    };
    let failure = zombie
        .commit(&generation, vec![writes])
        .expect_err("it has been replaced");
    assert!(matches!(failure, Failure::Fenced(_)), "{failure}");

    await_assignment(&mut successor);
    assert_eq!(successor.committed(0).expect("the log works"), Some(1));
    commit_one(&mut successor, 0, 2, "successor");
    assert_eq!(visible_events(environment, 2), ["before", "successor"]);
    eventually("the zombie detects the fencing", || {
        let mut inputs = Vec::new();
        (zombie.poll(1, POLL_TIMEOUT, &mut inputs).is_err() || zombie.is_member().is_err())
            .then_some(())
    });
}

/// A bounded read returns what is committed below the bound, past aborted records and markers.
pub fn a_read_skips_aborted_records(environment: &impl LogEnvironment) {
    for round in 0..3 {
        let aborted = environment.begin();
        aborted.append(Topic::Events, 0, "aborted");
        aborted.abort();
        let committed = environment.begin();
        committed.append(Topic::Events, 0, &format!("{round}a"));
        committed.append(Topic::Events, 0, &format!("{round}b"));
        committed.commit();
    }
    let last = environment.begin();
    last.append(Topic::Events, 0, "aborted");
    last.abort();

    let mut log = environment.join("one");
    await_assignment(&mut log);
    let ends = log.ends(Topic::Events, 0).expect("the log works");
    assert_eq!(ends.low, 0);
    assert!(
        ends.high >= 6 + 4,
        "records of aborted transactions count: {ends:?}"
    );
    log.open(Topic::Events, 0, ends.low, ends.high)
        .expect("the log works");
    let inputs = read_all(&mut log);
    assert_eq!(payloads(&inputs), ["0a", "0b", "1a", "1b", "2a", "2b"]);

    let from = inputs[3].offset;
    log.open(Topic::Events, 0, from, ends.high)
        .expect("the log works");
    assert_eq!(
        payloads(&read_all(&mut log)),
        ["1b", "2a", "2b"],
        "from the middle"
    );
    log.open(Topic::Events, 0, ends.high, ends.high)
        .expect("the log works");
    assert!(
        read_all(&mut log).is_empty(),
        "there is no record past the end"
    );
}

/// A bounded read does not end while a transaction is open below its bound. It includes the records if that commits.
pub fn a_read_waits_for_an_open_transaction(environment: &impl LogEnvironment) {
    environment.append(Topic::Events, 0, "before");
    let open = environment.begin();
    open.append(Topic::Events, 0, "late");
    environment.append(Topic::Events, 0, "after");

    let mut log = environment.join("one");
    await_assignment(&mut log);
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
    inputs.extend(read_all(&mut log));
    assert_eq!(payloads(&inputs), ["before", "late", "after"]);
}

/// At the end of a partition the log reports the real position: past markers and aborted records, but never past a
/// record that is not yet delivered.
pub fn the_position_advances_past_markers(environment: &impl LogEnvironment) {
    environment.append(Topic::Commands, 0, "command");
    let aborted = environment.begin();
    aborted.append(Topic::Commands, 0, "aborted");
    aborted.abort();
    let mut log = environment.join("one");
    await_assignment(&mut log);
    log.start(0, 0).expect("the log works");
    assert_eq!(poll_records(&mut log, 1), ["command"]);

    let end = environment.end(Topic::Commands, 0);
    assert!(
        end >= 3,
        "an aborted record and a marker follow the command"
    );
    assert!(
        poll_until_position(&mut log, end).is_empty(),
        "nothing is delivered after the command"
    );

    let late = environment.begin();
    late.append(Topic::Commands, 0, "late");
    late.commit();
    let after_late = environment.end(Topic::Commands, 0);
    assert_eq!(
        poll_records(&mut log, 1),
        ["late"],
        "the record is delivered, not skipped"
    );
    assert!(
        poll_until_position(&mut log, after_late).is_empty(),
        "nothing is delivered after the late one"
    );
}

/// A stale generation is refused even for partitions that its member keeps.
pub fn a_stale_generation_is_refused_for_kept_partitions(environment: &impl LogEnvironment) {
    let mut one = environment.join("one");
    await_assignment(&mut one);
    let stale = one.generation().expect("it has joined");
    commit_one(&mut one, 0, 1, "before");
    commit_one(&mut one, 1, 1, "before");
    let mut two = environment.join("two");
    let kept = 1 - share_partitions(&mut one, &mut two);

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

/// A static member that returns gets the same partitions, without a rebalance of the others.
pub fn a_returning_static_member_keeps_its_partitions(environment: &impl LogEnvironment) {
    let mut one = environment.join("one");
    await_assignment(&mut one);
    let mut two = environment.join("two");
    let moved = share_partitions(&mut one, &mut two);
    // Both have received the last generation.
    eventually("both members can commit", || {
        poll_silent(&mut one);
        poll_silent(&mut two);
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
    let mut returned = environment.join("one");
    let mut assigned = Vec::new();
    eventually("its partitions are assigned again", || {
        for signal in poll_silent(&mut returned) {
            if let Signal::Assigned(partitions) = signal {
                assigned.extend(partitions);
            }
        }
        (!assigned.is_empty()).then_some(())
    });
    assert_eq!(assigned, [1 - moved]);
    let writes = PartitionWrites {
        partition: moved,
        offset: 2,
        outputs: Vec::new(),
    };
    two.commit(&generation, vec![writes])
        .expect("its generation is still valid");
}

/// Records after an open transaction are delivered when it has ended. Until then the position does not advance past it.
pub fn an_open_transaction_holds_back_later_records(environment: &impl LogEnvironment) {
    environment.append(Topic::Commands, 0, "before");
    let open = environment.begin();
    open.append(Topic::Commands, 0, "open");
    environment.append(Topic::Commands, 0, "behind");
    let mut log = environment.join("one");
    await_assignment(&mut log);
    log.start(0, 0).expect("the log works");
    assert_eq!(poll_records(&mut log, 1), ["before"]);
    let mut inputs = Vec::new();
    for _ in 0..5 {
        let signals = log
            .poll(100, POLL_TIMEOUT, &mut inputs)
            .expect("the log works");
        let beyond =
            |signal: &Signal| matches!(signal, Signal::Reached { offset, .. } if *offset > 1);
        assert!(!signals.iter().any(beyond), "{signals:?}");
    }
    assert!(inputs.is_empty(), "the transaction is open: {inputs:?}");
    open.commit();
    assert_eq!(poll_records(&mut log, 2), ["open", "behind"]);
}
