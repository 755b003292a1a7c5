//! What the status shows, and how it is drawn: pure.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use http::uri::Authority;
use serde::Serialize;

use super::alerts::Told;
use super::groups::Groups;
use super::process::Reading;
use crate::terminal::{self, Align, Table, count};

/// Metrics of other crates, by their names: processes of another version may tell some of them only.
mod metric {
    pub const VERSION: &str = "ordermesh_build_info";
    pub const COMMANDS: &str = "ordermesh_engine_commands_total";
    pub const EVENTS: &str = "ordermesh_engine_events_total";
    pub const BREAKER: &str = "ordermesh_engine_breaker_state";
    pub const OLDEST_EFFECT: &str = "ordermesh_engine_effects_oldest_seconds";
    pub const ORDERS: &str = query::metrics::names::ORDERS.name;
    pub const READ_LAG: &str = query::metrics::names::LAG_RECORDS.name;
    pub const READ_LAG_SECONDS: &str = query::metrics::names::LAG_SECONDS.name;
    pub const OPEN_ORDERS: &str = query::metrics::names::OPEN_ORDERS.name;
    pub const PARKED_KEYS: &str = query::metrics::names::PARKED_KEYS.name;
}

/// What stands where nothing is known.
const UNKNOWN: &str = "–";

/// The platform at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    processes: Vec<Process>,
    log: Groups,
    rates: Rates,
    read_side: ReadSide,
    partners: Vec<Partner>,
    alerts: Told,
}

/// A process, as its admin port tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    admin: String,
    state: State,
    version: Option<String>,
    /// By component: why it is not ready.
    components: BTreeMap<String, Option<String>>,
    /// Why it was not reached.
    failure: Option<String>,
    #[serde(skip)]
    rates: Rates,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ready,
    NotReady,
    ShuttingDown,
    Down,
}

/// So many a second; empty while there is nothing to count from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Rates {
    /// Commands by service.
    commands: BTreeMap<String, f64>,
    /// Events by service.
    events: BTreeMap<String, f64>,
    /// Orders by the status that they came to.
    orders: BTreeMap<String, f64>,
}

/// What the projectors and the tables tell; `None`: nobody does.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct ReadSide {
    lag_records: Option<f64>,
    lag_seconds: Option<f64>,
    open_orders: Option<f64>,
    parked_keys: Option<f64>,
}

/// Somebody outside who is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Partner {
    service: String,
    target: String,
    breaker: &'static str,
    oldest_seconds: f64,
}

/// A process from what it says now, and what it said before.
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
                // A process that was started again counts from the beginning.
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

impl Picture {
    /// Puts together what was read at the same time.
    pub fn new<'a>(
        processes: Vec<Process>,
        log: Groups,
        readings: impl Iterator<Item = &'a Reading>,
        alerts: Told,
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
    /// Each partition has one projector; the tables are the same for everybody.
    fn add(&mut self, reading: &Reading) {
        let sum = |metric| reading.samples.sum(metric, &[]);
        self.lag_records = match (self.lag_records, sum(metric::READ_LAG)) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        let oldest = reading.samples.max(metric::READ_LAG_SECONDS, &[]);
        self.lag_seconds = larger(self.lag_seconds, oldest);
        self.open_orders = larger(self.open_orders, sum(metric::OPEN_ORDERS));
        self.parked_keys = larger(self.parked_keys, sum(metric::PARKED_KEYS));
    }
}

fn larger(one: Option<f64>, other: Option<f64>) -> Option<f64> {
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

impl Display for Picture {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let at = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        writeln!(formatter, "Processes at {at}\n{}", self.processes())?;
        match &self.log.failure {
            Some(failure) => writeln!(
                formatter,
                "Partitions\n  the broker at {} tells nothing: {failure}",
                self.log.broker
            )?,
            None => writeln!(
                formatter,
                "Partitions, by the broker at {}\n{}{}",
                self.log.broker,
                self.groups(),
                self.held_up()
            )?,
        }
        writeln!(formatter, "Rates, per second\n{}", self.rates())?;
        writeln!(formatter, "Read side\n{}", self.read_side())?;
        writeln!(formatter, "Partners\n{}", self.partners())?;
        writeln!(formatter, "Dead letters\n{}", self.dead_letters())?;
        write!(formatter, "{}", self.alerts())
    }
}

impl Picture {
    fn processes(&self) -> Table {
        let mut table = Table::new([("", Align::Left); 4]);
        for process in &self.processes {
            let state = match process.state {
                State::Ready => "ready",
                State::NotReady => "NOT READY",
                State::ShuttingDown => "shutting down",
                State::Down => "DOWN",
            };
            table.row([
                process.admin.clone(),
                state.to_owned(),
                process
                    .version
                    .clone()
                    .unwrap_or_else(|| UNKNOWN.to_owned()),
                process.detail(),
            ]);
        }
        table
    }

    fn groups(&self) -> Table {
        let mut table = Table::new([
            ("service", Align::Left),
            ("owner", Align::Left),
            ("partitions", Align::Left),
            ("behind", Align::Right),
            ("oldest", Align::Right),
        ]);
        for share in &self.log.groups {
            let partitions: Vec<_> = share.partitions.iter().map(i32::to_string).collect();
            table.row([
                share.service.to_owned(),
                share.owner.clone().unwrap_or_else(|| "NOBODY".to_owned()),
                partitions.join(" "),
                count(share.lag_records),
                age(share.lag_seconds),
            ]);
        }
        table
    }

    fn held_up(&self) -> String {
        let held_up = self.log.held_up.iter().map(|held_up| {
            format!(
                "\n  {} [{}] is held up by a transaction, for {}",
                held_up.topic,
                held_up.partition,
                age(held_up.seconds)
            )
        });
        held_up.collect()
    }

    fn rates(&self) -> String {
        let mut table = Table::new([
            ("service", Align::Left),
            ("commands", Align::Right),
            ("events", Align::Right),
        ]);
        for (service, commands) in &self.rates.commands {
            let events = self.rates.events.get(service).copied();
            table.row([
                service.clone(),
                rate(*commands),
                rate(events.unwrap_or(0.0)),
            ]);
        }
        if self.rates.commands.is_empty() {
            return "  no worker tells any".to_owned();
        }
        table.to_string()
    }

    fn read_side(&self) -> String {
        let number =
            |value: Option<f64>| value.map_or_else(|| UNKNOWN.to_owned(), |value| whole(value));
        let read = &self.read_side;
        let mut lines = format!(
            "  behind {}, oldest {}, open orders {}, parked keys {}",
            number(read.lag_records),
            read.lag_seconds.map_or_else(|| UNKNOWN.to_owned(), age),
            number(read.open_orders),
            number(read.parked_keys),
        );
        let orders = &self.rates.orders;
        if !orders.is_empty() {
            let orders: Vec<_> = orders
                .iter()
                .map(|(status, orders)| format!("{} {}", status.replace('_', " "), rate(*orders)))
                .collect();
            lines.push_str(&format!("\n  orders per second: {}", orders.join(", ")));
        }
        lines
    }

    fn partners(&self) -> String {
        if self.partners.is_empty() {
            return "  nobody is asked yet".to_owned();
        }
        let mut table = Table::new([
            ("service", Align::Left),
            ("target", Align::Left),
            ("breaker", Align::Left),
            ("oldest question", Align::Right),
        ]);
        for partner in &self.partners {
            let breaker = match partner.breaker {
                "closed" => "closed".to_owned(),
                other => other.to_uppercase(),
            };
            table.row([
                partner.service.clone(),
                partner.target.clone(),
                breaker,
                age(partner.oldest_seconds),
            ]);
        }
        table.to_string()
    }

    fn dead_letters(&self) -> String {
        if self.log.failure.is_some() {
            return format!("  {UNKNOWN}");
        }
        if self.log.dead_letters.is_empty() {
            return "  none".to_owned();
        }
        let letters = self.log.dead_letters.iter();
        let letters: Vec<_> = letters
            .map(|letters| format!("  {}  {}", letters.topic, count(letters.records)))
            .collect();
        letters.join("\n")
    }

    fn alerts(&self) -> String {
        let Some(by) = &self.alerts.by else {
            let failure = self.alerts.failure.as_deref().unwrap_or_default();
            return format!("Alerts\n  not reachable: {failure}");
        };
        let mut text = format!("Alerts, by {by}\n");
        if self.alerts.firing.is_empty() {
            text.push_str("  none");
            return text;
        }
        let mut table = Table::new([("", Align::Left); 3]);
        for alert in &self.alerts.firing {
            table.row([
                alert.severity.clone(),
                alert.name.clone(),
                alert.summary.clone(),
            ]);
        }
        text.push_str(&table.to_string());
        text
    }
}

impl Process {
    /// What keeps it from being ready, else what it consists of.
    fn detail(&self) -> String {
        if let Some(failure) = &self.failure {
            return failure.clone();
        }
        let waiting: Vec<_> = self
            .components
            .iter()
            .filter_map(|(name, reason)| Some(format!("{name} ({})", reason.as_deref()?)))
            .collect();
        if !waiting.is_empty() {
            return waiting.join(", ");
        }
        let names: Vec<_> = self.components.keys().map(String::as_str).collect();
        names.join(" ")
    }
}

/// `–` when there is nothing to be old.
fn age(seconds: f64) -> String {
    if seconds <= 0.0 {
        return UNKNOWN.to_owned();
    }
    terminal::duration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        whole(per_second)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "it is shown without decimals"
)]
fn whole(value: f64) -> String {
    count(value.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::super::alerts::Alert;
    use super::super::process::Health;
    use super::super::samples::Samples;
    use super::*;

    fn reading(commands: u32, samples: &str) -> Reading {
        let text = format!(
            "ordermesh_engine_commands_total{{service=\"orders\",kind=\"a\",outcome=\"accepted\"}} {commands}\n\
             ordermesh_engine_events_total{{service=\"orders\",kind=\"b\"}} 7\n\
             ordermesh_build_info{{version=\"1.2.3\"}} 1\n{samples}"
        );
        Reading {
            health: Health {
                ready: true,
                shutting_down: false,
                components: BTreeMap::from([("orders".to_owned(), None)]),
            },
            samples: Samples::parse(&text),
        }
    }

    fn admin(port: u16) -> Authority {
        format!("here:{port}").parse().unwrap()
    }

    fn picture(now: &Reading, log: Groups, alerts: Told) -> Picture {
        let begun = Instant::now();
        let before = (begun, reading(100, ""));
        let now = (begun + Duration::from_secs(2), now.clone());
        let refused = "connection refused".to_owned();
        let processes = vec![
            process(&admin(1), Ok(&now), Some(&before)),
            process(&admin(2), Err(&refused), Some(&before)),
        ];
        Picture::new(processes, log, [&now.1].into_iter(), alerts)
    }

    #[test]
    fn every_part_is_drawn_and_those_that_are_down_say_so() {
        let now = reading(
            140,
            "ordermesh_engine_breaker_state{service=\"payments\",target=\"provider\"} 2\n\
             ordermesh_engine_effects_oldest_seconds{service=\"payments\",target=\"provider\"} 12.5\n\
             ordermesh_query_lag_records{service=\"orders\",partition=\"0\"} 4\n\
             ordermesh_query_lag_records{service=\"orders\",partition=\"1\"} 5\n\
             ordermesh_query_parked_keys 1\n",
        );
        let log = Groups::new("here:9", &Err("refused".into()), 4);
        let alerts = Told {
            by: Some("http://here:3".into()),
            failure: None,
            firing: vec![Alert {
                severity: "critical".into(),
                name: "ConsumerAbsent".into(),
                summary: "nobody".into(),
            }],
        };
        let text = picture(&now, log, alerts).to_string();
        for expected in [
            "  here:1  ready  1.2.3  orders",
            "  here:2  DOWN   –      connection refused",
            "  the broker at here:9 tells nothing: refused",
            "  orders       20     0.0",
            "  behind 9, oldest –, open orders –, parked keys 1",
            "  payments  provider  OPEN              12.5 s",
            "Dead letters\n  –",
            "  critical  ConsumerAbsent  nobody",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_process_that_was_started_again_counts_from_the_beginning() {
        let picture = picture(&reading(30, ""), Groups::default(), Told::default());
        assert_eq!(picture.rates.commands["orders"], 15.0);
    }

    #[test]
    fn what_nobody_tells_is_not_nought() {
        let nothing = Told {
            failure: Some("http://here:3: connection refused".into()),
            ..Told::default()
        };
        let picture = Picture::new(Vec::new(), Groups::default(), std::iter::empty(), nothing);
        let text = picture.to_string();
        for expected in [
            "Rates, per second\n  no worker tells any",
            "behind –, oldest –, open orders –, parked keys –",
            "Partners\n  nobody is asked yet",
            "Alerts\n  not reachable: http://here:3: connection refused",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        let json = serde_json::to_value(&picture).unwrap();
        assert_eq!(
            json["read_side"]["open_orders"],
            serde_json::Value::Null,
            "{json}"
        );
    }
}
