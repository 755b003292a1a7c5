//! Projectors of a read model in memory: ownership, fetching, writing.

use std::cell::RefCell;
use std::collections::HashMap;

use contracts::{Service, Topic};
use engine::log::Partition;
use futures::FutureExt as _;
use query::{FetchedRecord, MemoryReadModel, Projection, Source};
use registry::Schemas;

use crate::safeguard::Safeguard;
use crate::simulation::Simulation;

/// Number of projectors; one of them owns all partitions.
const PROJECTORS: usize = 2;

/// The read model and its projectors.
pub struct Projectors {
    schemas: Schemas,
    model: RefCell<MemoryReadModel>,
    /// The projector that holds the lock, as the database sees it.
    owner: RefCell<Option<usize>>,
    projectors: RefCell<[Option<Projector>; PROJECTORS]>,
    violations: RefCell<Vec<String>>,
}

/// A projector between its steps.
struct Projector {
    projection: Projection,
    fetched: Option<(Vec<FetchedRecord>, HashMap<Source, i64>)>,
    /// The next offset of each partition.
    next_offsets: HashMap<Source, i64>,
}

impl Projectors {
    /// An empty read model.
    pub fn new(schemas: Schemas, disabled_safeguard: Option<Safeguard>) -> Self {
        let model = empty_model(disabled_safeguard);
        Self {
            schemas,
            model: RefCell::new(model),
            owner: RefCell::default(),
            projectors: RefCell::default(),
            violations: RefCell::default(),
        }
    }

    /// Runs the next step of a random projector, which may crash or lose its session before.
    pub fn step(&self, simulation: &Simulation) {
        let index = simulation.rng.below(PROJECTORS);
        let mut projectors = self.projectors.borrow_mut();
        let slot = &mut projectors[index];
        if simulation.faults_enabled()
            && simulation.rng.happens(simulation.plan.projector_fault_ppm)
        {
            // The database releases the locks of the session.
            let mut owner = self.owner.borrow_mut();
            if *owner == Some(index) {
                *owner = None;
            }
            if simulation.rng.flip_coin() {
                *slot = None;
                simulation
                    .journal
                    .note(format_args!("projector {index} crashes"));
            } else {
                simulation
                    .journal
                    .note(format_args!("projector {index} loses its session"));
            }
            return;
        }
        let Some(projector) = slot else {
            let mut owner = self.owner.borrow_mut();
            if owner.is_none() {
                *owner = Some(index);
                *slot = Some(self.start(simulation));
                simulation
                    .journal
                    .note(format_args!("projector {index} owns the read model"));
            }
            return;
        };
        match projector.fetched.take() {
            None => {
                // The projector checks its locks between two batches.
                if *self.owner.borrow() == Some(index) {
                    projector.fetch(simulation);
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
                    Ok(true) if count > 0 => simulation
                        .journal
                        .note(format_args!("projector {index} applies {count} events")),
                    Ok(true) => {}
                    Ok(false) => {
                        simulation
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
                        violations.push(format!("the read model refuses a batch: {error}"));
                        *slot = None;
                    }
                }
            }
        }
    }

    /// The position of the read model in a partition of a service's events.
    pub fn position(&self, service: Service, partition: Partition) -> i64 {
        let topic = Topic::Events.of(service, "");
        self.model.borrow().position(&topic, partition)
    }

    /// Whether the read model has applied all events.
    pub fn has_applied_all(&self, simulation: &Simulation) -> bool {
        let model = self.model.borrow();
        event_partitions(simulation).all(|(service, partition)| {
            let topic = Topic::Events.of(service, "");
            let end = simulation
                .broker
                .stable_end((service, Topic::Events, partition));
            model.position(&topic, partition) >= end
        })
    }

    /// Violations of the read model, which must be the fold of the log.
    pub fn violations(&self, simulation: &Simulation) -> Vec<String> {
        let mut violations = std::mem::take(&mut *self.violations.borrow_mut());
        let model = self.model.borrow();
        if model.parked() > 0 {
            violations.push(format!(
                "{} keys of the read model are parked",
                model.parked()
            ));
        }
        let mut rebuilt = empty_model(simulation.process_context.disabled_safeguard);
        let partitions: Vec<_> = (0..Partition::from(simulation.plan.partitions)).collect();
        let mut projection = Projection::begin(&mut rebuilt, self.schemas.clone(), &partitions)
            .now_or_never()
            .expect("memory does not wait")
            .expect("memory does not fail");
        let mut records = Vec::new();
        let mut reached = HashMap::new();
        for source in event_partitions(simulation) {
            let tp = (source.0, Topic::Events, source.1);
            let fetched = simulation.broker.fetch(tp, 0, usize::MAX);
            reached.insert(source, fetched.position);
            records.extend(
                fetched
                    .inputs
                    .into_iter()
                    .map(|input| to_fetched_record(source, input)),
            );
        }
        let written = projection
            .write(&mut rebuilt, records, &reached)
            .now_or_never()
            .expect("memory does not wait");
        if let Err(error) = written {
            violations.push(format!("the log cannot be folded: {error}"));
        }
        if *model != rebuilt {
            violations.push(format!(
                "the read model ({} rows) is not the fold of the log ({} rows)",
                model.rows(),
                rebuilt.rows()
            ));
        }
        violations
    }

    fn start(&self, simulation: &Simulation) -> Projector {
        let mut model = self.model.borrow_mut();
        let partitions: Vec<_> = (0..Partition::from(simulation.plan.partitions)).collect();
        let projection = Projection::begin(&mut model, self.schemas.clone(), &partitions)
            .now_or_never()
            .expect("memory does not wait")
            .expect("memory does not fail");
        let next_offsets = event_partitions(simulation)
            .filter_map(|source| Some((source, projection.position(source)?)))
            .collect();
        Projector {
            projection,
            fetched: None,
            next_offsets,
        }
    }
}

impl Projector {
    fn fetch(&mut self, simulation: &Simulation) {
        let mut records = Vec::new();
        let mut reached = HashMap::new();
        for source in event_partitions(simulation) {
            let Some(next) = self.next_offsets.get_mut(&source) else {
                continue;
            };
            let tp = (source.0, Topic::Events, source.1);
            let max = simulation.rng.below(20) + 1;
            let fetched = simulation.broker.fetch(tp, *next, max);
            *next = fetched.position;
            reached.insert(source, fetched.position);
            records.extend(
                fetched
                    .inputs
                    .into_iter()
                    .map(|input| to_fetched_record(source, input)),
            );
        }
        self.fetched = Some((records, reached));
    }
}

fn empty_model(disabled_safeguard: Option<Safeguard>) -> MemoryReadModel {
    if disabled_safeguard == Some(Safeguard::PositionGuard) {
        MemoryReadModel::without_fencing()
    } else {
        MemoryReadModel::default()
    }
}

fn event_partitions(simulation: &Simulation) -> impl Iterator<Item = Source> + use<> {
    let partitions = Partition::from(simulation.plan.partitions);
    Service::ALL
        .into_iter()
        .flat_map(move |service| (0..partitions).map(move |partition| (service, partition)))
}

fn to_fetched_record(source: Source, input: engine::log::Input) -> FetchedRecord {
    FetchedRecord {
        source,
        offset: input.offset,
        key: input.key.unwrap_or_default(),
        value: input.payload,
        time_ms: Some(input.time_ms),
        trace: None,
    }
}
