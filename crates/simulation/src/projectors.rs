//! Projectors that keep a read model in memory: who owns it, what has been fetched, and what is written.

use std::cell::RefCell;
use std::collections::HashMap;

use contracts::{Service, Topic};
use engine::log::Partition;
use futures::FutureExt as _;
use query::{Fetched, Memory, Projection, Source};
use registry::Schemas;

use crate::safeguard::Safeguard;
use crate::world::World;

/// How many there are; one of them owns all partitions.
const PROJECTORS: usize = 2;

/// The read model and those who work on it.
pub struct Projectors {
    schemas: Schemas,
    model: RefCell<Memory>,
    /// Who holds the lock, as the database sees it.
    owner: RefCell<Option<usize>>,
    projectors: RefCell<[Option<Projector>; PROJECTORS]>,
    violations: RefCell<Vec<String>>,
}

/// A process between its steps.
struct Projector {
    projection: Projection,
    fetched: Option<(Vec<Fetched>, HashMap<Source, i64>)>,
    /// Where it reads on.
    read: HashMap<Source, i64>,
}

impl Projectors {
    /// An empty read model.
    pub fn new(schemas: Schemas, without: Option<Safeguard>) -> Self {
        let model = empty(without);
        Self {
            schemas,
            model: RefCell::new(model),
            owner: RefCell::default(),
            projectors: RefCell::default(),
            violations: RefCell::default(),
        }
    }

    /// One of them does its next step; now and then it crashes before, or its session ends without its knowing.
    pub fn step(&self, world: &World) {
        let index = world.dice.below(PROJECTORS);
        let mut projectors = self.projectors.borrow_mut();
        let slot = &mut projectors[index];
        if world.is_troubled() && world.dice.happens(world.plan.projector) {
            // Its locks go with its session.
            let mut owner = self.owner.borrow_mut();
            if *owner == Some(index) {
                *owner = None;
            }
            if world.dice.toss() {
                *slot = None;
                world
                    .journal
                    .note(format_args!("projector {index} crashes"));
            } else {
                world
                    .journal
                    .note(format_args!("projector {index} is cut off"));
            }
            return;
        }
        let Some(projector) = slot else {
            let mut owner = self.owner.borrow_mut();
            if owner.is_none() {
                *owner = Some(index);
                *slot = Some(self.begin(world));
                world
                    .journal
                    .note(format_args!("projector {index} owns the read model"));
            }
            return;
        };
        match projector.fetched.take() {
            None => {
                // It looks after its locks between two batches.
                if *self.owner.borrow() == Some(index) {
                    projector.fetch(world);
                } else {
                    *slot = None;
                }
            }
            Some((records, reached)) => {
                let count = records.len();
                let mut model = self.model.borrow_mut();
                let written = projector
                    .projection
                    .write(&mut model, records, &reached)
                    .now_or_never()
                    .expect("memory does not wait");
                match written {
                    Ok(true) if count > 0 => world
                        .journal
                        .note(format_args!("projector {index} applies {count} events")),
                    Ok(true) => {}
                    Ok(false) => {
                        world
                            .journal
                            .note(format_args!("projector {index} is fenced"));
                        *slot = None;
                        let mut owner = self.owner.borrow_mut();
                        if *owner == Some(index) {
                            *owner = None;
                        }
                    }
                    Err(error) => {
                        let mut violations = self.violations.borrow_mut();
                        violations.push(format!("the read model refuses: {error}"));
                        *slot = None;
                    }
                }
            }
        }
    }

    /// How far the read model has applied a partition of a service's events.
    pub fn position(&self, service: Service, partition: Partition) -> i64 {
        let topic = Topic::Events.of(service, "");
        self.model.borrow().position(&topic, partition)
    }

    /// Whether all events have been applied.
    pub fn is_done(&self, world: &World) -> bool {
        let model = self.model.borrow();
        sources(world).all(|(service, partition)| {
            let topic = Topic::Events.of(service, "");
            let end = world.broker.stable_end((service, Topic::Events, partition));
            model.position(&topic, partition) >= end
        })
    }

    /// The read model is the fold of the log.
    pub fn check(&self, world: &World) -> Vec<String> {
        let mut violations = std::mem::take(&mut *self.violations.borrow_mut());
        let model = self.model.borrow();
        if model.parked() > 0 {
            violations.push(format!(
                "{} keys of the read model are parked",
                model.parked()
            ));
        }
        let mut again = empty(world.parts.without);
        let partitions: Vec<_> = (0..Partition::from(world.plan.partitions)).collect();
        let mut projection = Projection::begin(&mut again, self.schemas.clone(), &partitions)
            .now_or_never()
            .expect("memory does not wait")
            .expect("memory does not fail");
        let mut records = Vec::new();
        let mut reached = HashMap::new();
        for source in sources(world) {
            let place = (source.0, Topic::Events, source.1);
            let fetched = world.broker.fetch(place, 0, usize::MAX);
            reached.insert(source, fetched.position);
            records.extend(
                fetched
                    .inputs
                    .into_iter()
                    .map(|input| record(source, input)),
            );
        }
        let written = projection
            .write(&mut again, records, &reached)
            .now_or_never()
            .expect("memory does not wait");
        if let Err(error) = written {
            violations.push(format!("the log cannot be folded: {error}"));
        }
        if *model != again {
            violations.push(format!(
                "the read model ({} rows) is not the fold of the log ({} rows)",
                model.rows(),
                again.rows()
            ));
        }
        violations
    }

    fn begin(&self, world: &World) -> Projector {
        let mut model = self.model.borrow_mut();
        let partitions: Vec<_> = (0..Partition::from(world.plan.partitions)).collect();
        let projection = Projection::begin(&mut model, self.schemas.clone(), &partitions)
            .now_or_never()
            .expect("memory does not wait")
            .expect("memory does not fail");
        let read = sources(world)
            .filter_map(|source| Some((source, projection.position(source)?)))
            .collect();
        Projector {
            projection,
            fetched: None,
            read,
        }
    }
}

impl Projector {
    fn fetch(&mut self, world: &World) {
        let mut records = Vec::new();
        let mut reached = HashMap::new();
        for source in sources(world) {
            let Some(next) = self.read.get_mut(&source) else {
                continue;
            };
            let place = (source.0, Topic::Events, source.1);
            let most = world.dice.below(20) + 1;
            let fetched = world.broker.fetch(place, *next, most);
            *next = fetched.position;
            reached.insert(source, fetched.position);
            records.extend(
                fetched
                    .inputs
                    .into_iter()
                    .map(|input| record(source, input)),
            );
        }
        self.fetched = Some((records, reached));
    }
}

fn empty(without: Option<Safeguard>) -> Memory {
    if without == Some(Safeguard::PositionGuard) {
        Memory::unguarded()
    } else {
        Memory::default()
    }
}

fn sources(world: &World) -> impl Iterator<Item = Source> + use<> {
    let partitions = Partition::from(world.plan.partitions);
    Service::ALL
        .into_iter()
        .flat_map(move |service| (0..partitions).map(move |partition| (service, partition)))
}

fn record(source: Source, input: engine::log::Input) -> Fetched {
    Fetched {
        source,
        offset: input.offset,
        key: input.key.unwrap_or_default(),
        value: input.payload,
        time_ms: Some(input.time_ms),
        trace: None,
    }
}
