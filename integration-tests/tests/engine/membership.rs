//! A place in the group that is lost for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use contracts::Topic;
use engine::log::{Appended, Ends, Error, Failure, Input, Log, Partition, Progress, Share, Signal};
use harness::{NoEffects, Stand, eventually};
use inventory::StockRules;

use super::given::{checkpointed, eager, happened_once, random, stock_work};

/// What the tests steer and see of a consumer that never finds its group again.
#[derive(Clone, Default)]
struct Loss(Arc<Inner>);

#[derive(Default)]
struct Inner {
    lost: AtomicBool,
    /// So many looks at the broker find nobody.
    away: AtomicU32,
    /// Nobody answers, although the place is kept.
    silent: AtomicBool,
    /// Looks that were answered since.
    answers: AtomicU32,
    rejoined: AtomicU32,
}

/// A log that passes time quickly and loses its group on command, until it is joined anew.
struct Losing<L> {
    log: L,
    loss: Loss,
    told: bool,
}

impl<L: Log> Losing<L> {
    fn is_lost(&self) -> bool {
        self.loss.0.lost.load(Ordering::SeqCst)
    }
}

/// Seconds that pass in one.
const HASTE: u32 = 30;

impl<L: Log> Log for Losing<L> {
    type Generation = L::Generation;

    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        inputs: &mut Vec<Input>,
    ) -> Result<Vec<Signal>, Error> {
        if self.loss.0.silent.load(Ordering::SeqCst) {
            return Ok(vec![Signal::Disconnected]);
        }
        if !self.is_lost() {
            return self.log.poll(max, wait / HASTE, inputs);
        }
        if self.told {
            return Ok(Vec::new());
        }
        self.told = true;
        Ok(vec![Signal::Revoked(vec![0, 1])])
    }

    fn generation(&mut self) -> Option<Self::Generation> {
        if self.is_lost() {
            None
        } else {
            self.log.generation()
        }
    }

    fn committed(&mut self, partition: Partition) -> Result<Option<i64>, Error> {
        self.log.committed(partition)
    }

    fn ends(&mut self, topic: Topic, partition: Partition) -> Result<Ends, Error> {
        if self.loss.0.silent.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("silent by plan".into()));
        }
        if self.is_lost() {
            let away = &self.loss.0.away;
            let looks = away.load(Ordering::SeqCst);
            if looks > 0 {
                away.store(looks - 1, Ordering::SeqCst);
                return Err(Error::Unavailable("away by plan".into()));
            }
            self.loss.0.answers.fetch_add(1, Ordering::SeqCst);
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
        shares: Vec<Share>,
    ) -> Result<Vec<Appended>, Failure> {
        self.log.commit(generation, shares)
    }

    fn recreate(&mut self) -> Result<(), Error> {
        self.log.recreate()
    }

    fn rejoin(&mut self) -> Result<(), Error> {
        self.loss.0.rejoined.fetch_add(1, Ordering::SeqCst);
        self.loss.0.lost.store(false, Ordering::SeqCst);
        self.told = false;
        self.log.rejoin()
    }

    fn is_member(&mut self) -> Result<bool, Error> {
        self.log.is_member()
    }

    fn now(&self) -> Duration {
        self.log.now() * HASTE
    }
}

#[test]
fn a_consumer_that_never_finds_its_group_again_is_made_anew() {
    let (stand, mut random) = (Stand::new(2), random());
    let loss = Loss::default();
    let log = Losing {
        log: stand.log::<StockRules>("one"),
        loss: loss.clone(),
        told: false,
    };
    let worker = stand.run_on(StockRules::default(), NoEffects, log, eager());
    worker.ready();
    let mut sent = stand.send_all(stock_work(&mut random, 100));
    happened_once(&stand, &sent);

    // A broker that is away is no reason, however long; one that answers is, after a while.
    loss.0.away.store(20, Ordering::SeqCst);
    loss.0.lost.store(true, Ordering::SeqCst);
    sent.extend(stand.send_all(stock_work(&mut random, 100)));
    happened_once(&stand, &sent);
    assert_eq!(loss.0.away.load(Ordering::SeqCst), 0);
    assert!(loss.0.answers.load(Ordering::SeqCst) > 10);
    assert_eq!(loss.0.rejoined.load(Ordering::SeqCst), 1);
    let recreated = engine::metrics::names::CONSUMERS_RECREATED.name;
    assert!((worker.figure(recreated) - 1.0).abs() < f64::EPSILON);
    checkpointed(&stand);
    worker.stop();
}

#[test]
fn a_broker_that_is_away_is_told_of_also_by_those_who_have_nothing_to_do() {
    let stand = Stand::new(2);
    let loss = Loss::default();
    let log = Losing {
        log: stand.log::<StockRules>("one"),
        loss: loss.clone(),
        told: false,
    };
    let worker = stand.run_on(StockRules::default(), NoEffects, log, eager());
    worker.ready();
    loss.0.silent.store(true, Ordering::SeqCst);
    let reason = eventually("it is not ready", || worker.status.ready().err());
    assert!(reason.contains("silent by plan"), "{reason}");
    loss.0.silent.store(false, Ordering::SeqCst);
    worker.ready();
    worker.stop();
}

#[test]
fn a_member_without_partitions_has_its_place() {
    let stand = Stand::new(1);
    let mut logs = [
        stand.log::<StockRules>("one"),
        stand.log::<StockRules>("two"),
    ];
    let mut owned = [0, 0];
    eventually("one has the partition, and both have a place", || {
        for (log, owned) in logs.iter_mut().zip(&mut owned) {
            let polled = log.poll(1, Duration::from_millis(10), &mut Vec::new());
            for signal in polled.expect("Kafka runs") {
                match signal {
                    Signal::Assigned(partitions) => *owned += partitions.len(),
                    Signal::Revoked(partitions) => *owned -= partitions.len(),
                    Signal::Reached { .. } | Signal::Disconnected => {}
                }
            }
        }
        let placed = logs.iter_mut().all(|log| log.generation().is_some());
        (placed && owned[0] + owned[1] == 1).then_some(())
    });
}
