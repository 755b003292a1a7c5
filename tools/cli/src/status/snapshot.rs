//! The snapshot that `ordermesh status` shows, computed from the readings. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::uri::Authority;
use serde::Serialize;

use super::alerts::FiringAlerts;
use super::groups::Groups;
use super::process::Reading;

/// Names of the metrics of other crates. A process of another version may lack some of them.
mod metric {
    pub const VERSION: &str = chassis::metrics::BUILD_INFO.name;
    pub const COMMANDS: &str = engine::metrics::names::COMMANDS.name;
    pub const EVENTS: &str = engine::metrics::names::EVENTS.name;
    pub const BREAKER: &str = engine::metrics::names::BREAKER_STATE.name;
    pub const OLDEST_EFFECT: &str = engine::metrics::names::EFFECTS_OLDEST_SECONDS.name;
    pub const ORDERS: &str = query::metrics::names::ORDERS.name;
    pub const READ_LAG: &str = query::metrics::names::LAG_RECORDS.name;
    pub const READ_LAG_SECONDS: &str = query::metrics::names::LAG_SECONDS.name;
    pub const OPEN_ORDERS: &str = query::metrics::names::OPEN_ORDERS.name;
    pub const PARKED_KEYS: &str = query::metrics::names::PARKED_KEYS.name;
}

/// The state of the platform at one time. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    pub(super) processes: Vec<Process>,
    pub(super) log: Groups,
    pub(super) rates: Rates,
    pub(super) read_side: ReadSide,
    pub(super) partners: Vec<Partner>,
    pub(super) alerts: FiringAlerts,
}

/// The state of one process. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    pub(super) admin: String,
    pub(super) state: State,
    pub(super) version: Option<String>,
    /// By component: why it is not ready; `None` when it is.
    pub(super) components: BTreeMap<String, Option<String>>,
    /// Why the process was not reachable.
    pub(super) failure: Option<String>,
    #[serde(skip)]
    pub(super) rates: Rates,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Ready,
    NotReady,
    ShuttingDown,
    Down,
}

/// Rates per second; empty without an earlier reading. The fields are keys of `--json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Commands by service.
    pub(super) commands: BTreeMap<String, f64>,
    /// Events by service.
    pub(super) events: BTreeMap<String, f64>,
    /// Orders by the status that they reached.
    pub(super) orders: BTreeMap<String, f64>,
}

/// Figures of the projectors and the read model; `None` when no process reports them. The fields are keys of `--json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct ReadSide {
    pub(super) lag_records: Option<f64>,
    pub(super) lag_seconds: Option<f64>,
    pub(super) open_orders: Option<f64>,
    pub(super) parked_keys: Option<f64>,
}

/// A partner that a service calls. The fields are keys of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Partner {
    pub(super) service: String,
    pub(super) target: String,
    pub(super) breaker: &'static str,
    pub(super) oldest_seconds: f64,
}

/// The state of a process, from its current and its previous reading.
pub fn process(
    admin: &Authority,
    now: Result<&(Instant, Reading), &String>,
    before: Option<&(Instant, Reading)>,
) -> Process {
    let (at, reading) = match now {
        Ok(reading) => reading,
        Err(failure) => {
            return Process {
                admin: admin.to_string(),
                state: State::Down,
                version: None,
                components: BTreeMap::new(),
                failure: Some(failure.clone()),
                rates: Rates::default(),
            };
        }
    };
    let health = &reading.health;
    let versions = reading.samples.labels(metric::VERSION, "version");
    Process {
        admin: admin.to_string(),
        state: match (health.ready, health.shutting_down) {
            (true, _) => State::Ready,
            (false, true) => State::ShuttingDown,
            (false, false) => State::NotReady,
        },
        version: versions.first().map(|version| (*version).to_owned()),
        components: health.components.clone(),
        failure: None,
        rates: before.map_or_else(Rates::default, |(since, before)| {
            Rates::between(before, reading, at.saturating_duration_since(*since))
        }),
    }
}

impl Rates {
    fn between(before: &Reading, now: &Reading, time: Duration) -> Self {
        let rates = |metric: &str, label: &str| {
            let values = now.samples.labels(metric, label);
            let rate = |value: &str| {
                let sum = |reading: &Reading| reading.samples.sum(metric, &[(label, value)]);
                let rise = sum(now)? - sum(before).unwrap_or(0.0);
                // The counters of a restarted process begin at 0.
                let rise = if rise < 0.0 { sum(now)? } else { rise };
                Some((value.to_owned(), rise / time.as_secs_f64().max(0.001)))
            };
            values.into_iter().filter_map(rate).collect()
        };
        Self {
            commands: rates(metric::COMMANDS, "service"),
            events: rates(metric::EVENTS, "service"),
            orders: rates(metric::ORDERS, "status"),
        }
    }

    fn add(&mut self, other: &Self) {
        for (sums, more) in [
            (&mut self.commands, &other.commands),
            (&mut self.events, &other.events),
            (&mut self.orders, &other.orders),
        ] {
            for (name, rate) in more {
                *sums.entry(name.clone()).or_default() += rate;
            }
        }
    }
}

impl Snapshot {
    /// Combines readings of about the same time.
    pub fn new<'a>(
        processes: Vec<Process>,
        log: Groups,
        readings: impl Iterator<Item = &'a Reading>,
        alerts: FiringAlerts,
    ) -> Self {
        let mut rates = Rates::default();
        for process in &processes {
            rates.add(&process.rates);
        }
        let mut read_side = ReadSide::default();
        let mut partners = Vec::new();
        for reading in readings {
            read_side.add(reading);
            partners.extend(partners_of(reading));
        }
        partners.sort_by(|one, other| {
            (&one.service, &one.target, one.breaker).cmp(&(
                &other.service,
                &other.target,
                other.breaker,
            ))
        });
        Self {
            processes,
            log,
            rates,
            read_side,
            partners,
            alerts,
        }
    }
}

impl ReadSide {
    /// Adds a reading. Lag in records is summed, because each partition has one projector; the other figures are the
    /// same for all processes, so the largest is taken.
    fn add(&mut self, reading: &Reading) {
        let sum = |metric| reading.samples.sum(metric, &[]);
        self.lag_records = match (self.lag_records, sum(metric::READ_LAG)) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        let oldest = reading.samples.max(metric::READ_LAG_SECONDS, &[]);
        self.lag_seconds = max_of(self.lag_seconds, oldest);
        self.open_orders = max_of(self.open_orders, sum(metric::OPEN_ORDERS));
        self.parked_keys = max_of(self.parked_keys, sum(metric::PARKED_KEYS));
    }
}

fn max_of(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

fn partners_of(reading: &Reading) -> Vec<Partner> {
    let samples = &reading.samples;
    let mut partners = Vec::new();
    for service in samples.labels(metric::BREAKER, "service") {
        for target in samples.labels(metric::BREAKER, "target") {
            let labels = [("service", service), ("target", target)];
            let Some(state) = samples.max(metric::BREAKER, &labels) else {
                continue;
            };
            partners.push(Partner {
                service: service.to_owned(),
                target: target.to_owned(),
                breaker: match state {
                    ..0.5 => "closed",
                    0.5..1.5 => "half-open",
                    _ => "open",
                },
                oldest_seconds: samples.max(metric::OLDEST_EFFECT, &labels).unwrap_or(0.0),
            });
        }
    }
    partners
}
