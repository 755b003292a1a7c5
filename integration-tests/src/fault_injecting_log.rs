//! A log with injected faults.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use contracts::Topic;
use engine::log::{
    Appended, Ends, Error, Failure, Input, Log, Membership, Output, Partition, PartitionWrites,
    Peek, Progress, Signal,
};
use parking_lot::Mutex;

/// Fault of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written; the worker receives an abort.
    Abort,
    /// Everything is written and then aborted by Kafka, because one record is too large.
    AbortAfterWrite,
    /// Nothing is written; the worker receives an unclear end.
    UnclearAndLost,
    /// The transaction is committed; the worker receives an unclear end.
    UnclearButCommitted,
    /// Nothing is written; the producer is fenced although it has no successor.
    FencedWithoutSuccessor,
}

/// The remaining faults, by the number of the transaction.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    faults: VecDeque<(usize, Fault)>,
    commits: usize,
}

impl Plan {
    /// Each number (1, 2, 3…, ascending) counts the transactions that write something.
    pub fn new(faults: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        let inner = Inner {
            faults: faults.into_iter().collect(),
            commits: 0,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Whether every fault has happened.
    ///
    /// # Panics
    ///
    /// When a holder panicked.
    pub fn is_over(&self) -> bool {
        self.inner.lock().faults.is_empty()
    }

    fn next(&self) -> Option<Fault> {
        let mut inner = self.inner.lock();
        inner.commits += 1;
        let commits = inner.commits;
        inner
            .faults
            .pop_front_if(|(at, _)| *at == commits)
            .map(|(_, fault)| fault)
    }
}

/// Shared handle that controls a consumer and observes the worker's reactions.
pub type ConsumerControl = Arc<ConsumerState>;

/// Injected faults and observed calls of a consumer.
#[derive(Debug, Default)]
pub struct ConsumerState {
    /// The consumer has lost its membership and does not find its group until it is recreated.
    pub membership_lost: AtomicBool,
    /// The broker does not answer, although the membership is kept.
    pub unresponsive: AtomicBool,
    /// Number of probes of the broker that fail while the membership is lost.
    pub failing_probes: AtomicU32,
    /// Number of probes that succeeded after that.
    pub answered_probes: AtomicU32,
    /// How often the coordinator was asked.
    pub coordinator_lookups: AtomicU32,
    /// How often the consumer was recreated.
    pub recreations: AtomicU32,
}

impl ConsumerState {
    fn has_lost_membership(&self) -> bool {
        self.membership_lost.load(Ordering::SeqCst)
    }

    fn is_unresponsive(&self) -> bool {
        self.unresponsive.load(Ordering::SeqCst)
    }
}

/// How much faster the log's clock runs while a fault of the consumer lasts. Otherwise it is the real one: a broker that
/// is slow for a moment must not look like one that is unavailable for seconds.
const TIME_FACTOR: u32 = 30;

/// A log whose transactions fail by plan, or whose consumer is controlled. All other calls are forwarded.
pub struct FaultInjectingLog<L> {
    log: L,
    plan: Plan,
    consumer: ConsumerControl,
    loss_reported: bool,
    clock: Mutex<Clock>,
}

/// A clock that has run at different speeds.
#[derive(Debug, Default)]
struct Clock {
    /// The real time at the last reading.
    real: Duration,
    /// What was read then.
    shown: Duration,
    /// Whether a fault lasted then.
    was_faulty: bool,
}

impl<L: Log> FaultInjectingLog<L> {
    fn is_faulty(&self) -> bool {
        self.consumer.has_lost_membership() || self.consumer.is_unresponsive()
    }

    /// Fails by `plan`, which may span several logs.
    pub fn new(log: L, plan: Plan) -> Self {
        Self {
            log,
            plan,
            consumer: ConsumerControl::default(),
            loss_reported: false,
            clock: Mutex::default(),
        }
    }

    /// Puts the consumer under control, and accelerates the clock while one of its faults lasts.
    pub fn controlled(log: L, consumer: ConsumerControl) -> Self {
        Self {
            consumer,
            ..Self::new(log, Plan::default())
        }
    }
}

impl<L: Log> Log for FaultInjectingLog<L> {
    type Generation = L::Generation;

    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        inputs: &mut Vec<Input>,
    ) -> Result<Vec<Signal>, Error> {
        if self.consumer.is_unresponsive() {
            return Ok(vec![Signal::Disconnected]);
        }
        if self.consumer.has_lost_membership() {
            let reported = std::mem::replace(&mut self.loss_reported, true);
            return Ok(if reported {
                Vec::new()
            } else {
                vec![Signal::Revoked(vec![0, 1])]
            });
        }
        let speed = if self.is_faulty() { TIME_FACTOR } else { 1 };
        self.log.poll(max, wait / speed, inputs)
    }

    fn generation(&mut self) -> Option<Self::Generation> {
        if self.consumer.has_lost_membership() {
            None
        } else {
            self.log.generation()
        }
    }

    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error> {
        self.log.committed(partition)
    }

    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error> {
        if self.consumer.is_unresponsive() {
            return Err(Error::Unavailable("silent by plan".into()));
        }
        if self.consumer.has_lost_membership() {
            let probes = self.consumer.failing_probes.load(Ordering::SeqCst);
            if probes > 0 {
                self.consumer
                    .failing_probes
                    .store(probes - 1, Ordering::SeqCst);
                return Err(Error::Unavailable("away by plan".into()));
            }
            self.consumer.answered_probes.fetch_add(1, Ordering::SeqCst);
        }
        self.log.ends(topic, partition)
    }

    fn stable_end(&self, partition: Partition) -> Option<i64> {
        self.log.stable_end(partition)
    }

    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.log.start(partition, offset)
    }

    fn pause(&mut self, partition: Partition) -> Result<(), Error> {
        self.log.pause(partition)
    }

    fn open(
        &mut self,
        topic: Topic,
        partition: Partition,
        from: i64,
        until: i64,
    ) -> Result<(), Error> {
        self.log.open(topic, partition, from, until)
    }

    fn read(&mut self, wait: Duration, inputs: &mut Vec<Input>) -> Result<Progress, Error> {
        self.log.read(wait, inputs)
    }

    fn commit(
        &mut self,
        generation: &Self::Generation,
        mut writes: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        let Some(fault) = self.plan.next() else {
            return self.log.commit(generation, writes);
        };
        println!("transaction with {} writes: {fault:?}", writes.len());
        match fault {
            Fault::Abort => Err(Failure::Aborted("by plan".into())),
            Fault::AbortAfterWrite => {
                // A write may contain nothing but its offset.
                let Some(write) = writes.iter_mut().find(|write| !write.outputs.is_empty()) else {
                    return Err(Failure::Aborted("by plan, without data".into()));
                };
                write.outputs.push(too_large(&write.outputs[0]));
                match self.log.commit(generation, writes) {
                    Ok(_) => unreachable!("no log takes a record that is too large"),
                    failure => failure,
                }
            }
            Fault::FencedWithoutSuccessor => Err(Failure::Fenced("by plan".into())),
            Fault::UnclearAndLost => Err(Failure::Unclear("by plan".into())),
            Fault::UnclearButCommitted => match self.log.commit(generation, writes) {
                Ok(_) => Err(Failure::Unclear("by plan, but committed".into())),
                failure => failure,
            },
        }
    }

    fn recreate(&mut self) -> Result<(), Error> {
        self.log.recreate()
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        self.consumer.recreations.fetch_add(1, Ordering::SeqCst);
        self.consumer.membership_lost.store(false, Ordering::SeqCst);
        self.loss_reported = false;
        self.log.rejoin()
    }

    fn is_member(&mut self) -> Result<bool, Error> {
        self.log.is_member()
    }

    fn membership(&self) -> Membership {
        if self.consumer.has_lost_membership() {
            return Membership::Unconfirmed {
                reason: "lost by plan".to_owned(),
                lasts: Duration::ZERO,
            };
        }
        self.log.membership()
    }

    fn ask_coordinator(&mut self) -> Result<(), Error> {
        self.consumer
            .coordinator_lookups
            .fetch_add(1, Ordering::SeqCst);
        self.log.ask_coordinator()
    }

    fn peek(&mut self, partition: Partition, offset: i64) -> Result<Peek, Error> {
        self.log.peek(partition, offset)
    }

    fn now(&self) -> Duration {
        let real = self.log.now();
        let is_faulty = self.is_faulty();
        let mut clock = self.clock.lock();
        // Only while the fault has lasted for the whole time between the two readings.
        let factor = if is_faulty && clock.was_faulty {
            TIME_FACTOR
        } else {
            1
        };
        let elapsed = real.saturating_sub(clock.real);
        clock.shown += elapsed * factor;
        clock.real = real;
        clock.was_faulty = is_faulty;
        clock.shown
    }

    fn unix_ms(&self) -> i64 {
        self.log.unix_ms()
    }
}

/// A record like `other` that is larger than any log accepts.
pub fn too_large(other: &Output) -> Output {
    Output {
        payload: Some(vec![0; 8_000_000]),
        ..other.clone()
    }
}
