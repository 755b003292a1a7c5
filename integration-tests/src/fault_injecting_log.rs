//! A log that fails on command.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::Topic;
use engine::log::{
    Appended, Ends, Error, Failure, Input, Log, Membership, Output, Partition, PartitionWrites,
    Peek, Progress, Signal,
};

/// What happens to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, and the worker is told that it was aborted.
    Abort,
    /// Everything is written and then really aborted, because one record is too large.
    AbortBehindData,
    /// Nothing is written, and the worker is told that the end is unclear.
    UnclearAndLost,
    /// It is committed, and the worker is told that the end is unclear.
    UnclearButCommitted,
    /// Nothing is written, and the producer is refused, although nobody has come under its name.
    FencedByNobody,
}

/// The faults that are still to come, by the number of the transaction among all.
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
        self.inner
            .lock()
            .expect("no holder panics")
            .faults
            .is_empty()
    }

    fn next(&self) -> Option<Fault> {
        let mut inner = self.inner.lock().expect("no holder panics");
        inner.commits += 1;
        let commits = inner.commits;
        inner
            .faults
            .pop_front_if(|(at, _)| *at == commits)
            .map(|(_, fault)| fault)
    }
}

/// Steers what becomes of a consumer, and shows what is done about it.
pub type Steering = Arc<Group>;

/// What is steered and seen.
#[derive(Debug, Default)]
pub struct Group {
    /// The consumer has lost its place, and does not find its group again until it is made anew.
    pub lost: AtomicBool,
    /// Nobody answers, although the place is kept.
    pub silent: AtomicBool,
    /// So many looks at the broker find nobody while the place is lost.
    pub away: AtomicU32,
    /// Looks that were answered since.
    pub answers: AtomicU32,
    /// How often the coordinator was asked.
    pub asked: AtomicU32,
    /// How often the consumer was made anew.
    pub rejoined: AtomicU32,
}

impl Group {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::SeqCst)
    }
}

/// Seconds that pass in one where a consumer is steered.
const HASTE: u32 = 30;

/// A log whose transactions fail by plan, or whose consumer is steered; everything else goes through.
pub struct FaultInjectingLog<L> {
    log: L,
    plan: Plan,
    group: Steering,
    told_of_loss: bool,
    haste: u32,
}

impl<L: Log> FaultInjectingLog<L> {
    /// Fails by `plan`, which may go on from one log to the next.
    pub fn new(log: L, plan: Plan) -> Self {
        Self {
            log,
            plan,
            group: Steering::default(),
            told_of_loss: false,
            haste: 1,
        }
    }

    /// Its consumer is steered, and time passes quickly.
    pub fn steered(log: L, group: Steering) -> Self {
        Self {
            group,
            haste: HASTE,
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
        if self.group.is_silent() {
            return Ok(vec![Signal::Disconnected]);
        }
        if self.group.is_lost() {
            let told = std::mem::replace(&mut self.told_of_loss, true);
            return Ok(if told {
                Vec::new()
            } else {
                vec![Signal::Revoked(vec![0, 1])]
            });
        }
        self.log.poll(max, wait / self.haste, inputs)
    }

    fn generation(&mut self) -> Option<Self::Generation> {
        if self.group.is_lost() {
            None
        } else {
            self.log.generation()
        }
    }

    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error> {
        self.log.committed(partition)
    }

    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error> {
        if self.group.is_silent() {
            return Err(Error::Unavailable("silent by plan".into()));
        }
        if self.group.is_lost() {
            let looks = self.group.away.load(Ordering::SeqCst);
            if looks > 0 {
                self.group.away.store(looks - 1, Ordering::SeqCst);
                return Err(Error::Unavailable("away by plan".into()));
            }
            self.group.answers.fetch_add(1, Ordering::SeqCst);
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
        mut shares: Vec<PartitionWrites>,
    ) -> Result<Vec<Appended>, Failure> {
        let Some(fault) = self.plan.next() else {
            return self.log.commit(generation, shares);
        };
        println!("transaction with {} shares: {fault:?}", shares.len());
        match fault {
            Fault::Abort => Err(Failure::Aborted("by plan".into())),
            Fault::AbortBehindData => {
                // A share may do nothing but move its offset.
                let Some(share) = shares.iter_mut().find(|share| !share.outputs.is_empty()) else {
                    return Err(Failure::Aborted("by plan, without data".into()));
                };
                share.outputs.push(too_large(&share.outputs[0]));
                match self.log.commit(generation, shares) {
                    Ok(_) => unreachable!("no log takes a record that is too large"),
                    failure => failure,
                }
            }
            Fault::FencedByNobody => Err(Failure::Fenced("by plan".into())),
            Fault::UnclearAndLost => Err(Failure::Unclear("by plan".into())),
            Fault::UnclearButCommitted => match self.log.commit(generation, shares) {
                Ok(_) => Err(Failure::Unclear("by plan, but committed".into())),
                failure => failure,
            },
        }
    }

    fn recreate(&mut self) -> Result<(), Error> {
        self.log.recreate()
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        self.group.rejoined.fetch_add(1, Ordering::SeqCst);
        self.group.lost.store(false, Ordering::SeqCst);
        self.told_of_loss = false;
        self.log.rejoin()
    }

    fn is_member(&mut self) -> Result<bool, Error> {
        self.log.is_member()
    }

    fn membership(&self) -> Membership {
        if self.group.is_lost() {
            return Membership::Unconfirmed {
                reason: "lost by plan".to_owned(),
                lasts: Duration::ZERO,
            };
        }
        self.log.membership()
    }

    fn ask_coordinator(&mut self) -> Result<(), Error> {
        self.group.asked.fetch_add(1, Ordering::SeqCst);
        self.log.ask_coordinator()
    }

    fn peek(&mut self, partition: Partition, offset: i64) -> Result<Peek, Error> {
        self.log.peek(partition, offset)
    }

    fn now(&self) -> Duration {
        self.log.now() * self.haste
    }

    fn unix_ms(&self) -> i64 {
        self.log.unix_ms()
    }
}

/// A record beside `other` that no log takes.
pub fn too_large(other: &Output) -> Output {
    Output {
        payload: Some(vec![0; 8_000_000]),
        ..other.clone()
    }
}
