//! Formats a snapshot as text.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use terminal::{self, Align, Table, count};

use super::snapshot::{Process, Snapshot, State};

/// Shown in place of an unknown value.
const UNKNOWN: &str = "–";

impl Display for Snapshot {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let at = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        writeln!(formatter, "Processes at {at}\n{}", self.processes())?;
        match &self.log.failure {
            Some(failure) => writeln!(
                formatter,
                "Partitions\n  the broker at {} does not answer: {failure}",
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

impl Snapshot {
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
        for group in &self.log.groups {
            let partitions: Vec<_> = group.partitions.iter().map(i32::to_string).collect();
            table.row([
                group.service.to_owned(),
                group.owner.clone().unwrap_or_else(|| "NO OWNER".to_owned()),
                partitions.join(" "),
                count(group.lag_records),
                group.lag_seconds.map_or_else(|| UNKNOWN.to_owned(), age),
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
            return "  no worker reports any".to_owned();
        }
        table.to_string()
    }

    fn read_side(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| UNKNOWN.to_owned(), rounded);
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
            return "  no worker reports any".to_owned();
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
        if self.log.dead_letters.is_empty() {
            let nothing = if self.log.all_counted {
                "none"
            } else {
                UNKNOWN
            };
            return format!("  {nothing}");
        }
        let topics = self.log.dead_letters.iter();
        let lines: Vec<_> = topics
            .map(|topic| format!("  {}  {}", topic.topic, count(topic.records)))
            .collect();
        lines.join("\n")
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
    /// The components that are not ready, with reasons; else all components.
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

/// An age; `–` for zero.
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
        rounded(per_second)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "it is shown without decimals"
)]
fn rounded(value: f64) -> String {
    count(value.round() as i64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use chassis::Report;
    use http::uri::Authority;

    use super::super::alerts::{Alert, FiringAlerts};
    use super::super::groups::Groups;
    use super::super::process::Reading;
    use super::super::samples::Samples;
    use super::super::snapshot::process;
    use super::*;

    fn reading(commands: u32, samples: &str) -> Reading {
        let text = format!(
            "ordermesh_engine_commands_total{{service=\"orders\",kind=\"a\",outcome=\"accepted\"}} {commands}\n\
             ordermesh_engine_events_total{{service=\"orders\",kind=\"b\"}} 7\n\
             ordermesh_build_info{{version=\"1.2.3\"}} 1\n{samples}"
        );
        Reading {
            health: Report {
                ready: true,
                shutting_down: false,
                components: BTreeMap::from([("orders".to_owned(), None)]),
                ..Report::default()
            },
            samples: Samples::parse(&text),
        }
    }

    fn admin(port: u16) -> Authority {
        format!("here:{port}").parse().unwrap()
    }

    fn snapshot(now: &Reading, log: Groups, alerts: FiringAlerts) -> Snapshot {
        let start = Instant::now();
        let before = (start, reading(100, ""));
        let now = (start + Duration::from_secs(2), now.clone());
        let refused = "connection refused".to_owned();
        let processes = vec![
            process(&admin(1), Ok(&now), Some(&before)),
            process(&admin(2), Err(&refused), Some(&before)),
        ];
        Snapshot::new(processes, log, [&now.1].into_iter(), alerts)
    }

    #[test]
    fn every_part_is_shown_with_its_failure() {
        let now = reading(
            140,
            "ordermesh_engine_breaker_state{service=\"payments\",target=\"provider\"} 2\n\
             ordermesh_engine_effects_oldest_seconds{service=\"payments\",target=\"provider\"} 12.5\n\
             ordermesh_query_lag_records{service=\"orders\",partition=\"0\"} 4\n\
             ordermesh_query_lag_records{service=\"orders\",partition=\"1\"} 5\n\
             ordermesh_query_parked_keys 1\n",
        );
        let log = Groups::new("here:9", &Err("refused".into()), 4);
        let alerts = FiringAlerts {
            by: Some("http://here:3".into()),
            failure: None,
            firing: vec![Alert {
                severity: "critical".into(),
                name: "ConsumerAbsent".into(),
                summary: "no owner".into(),
            }],
        };
        let text = snapshot(&now, log, alerts).to_string();
        for expected in [
            "  here:1  ready  1.2.3  orders",
            "  here:2  DOWN   –      connection refused",
            "  the broker at here:9 does not answer: refused",
            "  orders         20     0.0",
            "  behind 9, oldest –, open orders –, parked keys 1",
            "  payments  provider  OPEN              12.5 s",
            "Dead letters\n  –",
            "  critical  ConsumerAbsent  no owner",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_rates_of_a_restarted_process_count_from_zero() {
        let snapshot = snapshot(&reading(30, ""), Groups::default(), FiringAlerts::default());
        assert_eq!(snapshot.rates.commands["orders"], 15.0);
    }

    #[test]
    fn unknown_values_are_not_shown_as_zero() {
        let unreachable = FiringAlerts {
            failure: Some("http://here:3: connection refused".into()),
            ..FiringAlerts::default()
        };
        let snapshot = Snapshot::new(
            Vec::new(),
            Groups::default(),
            std::iter::empty(),
            unreachable,
        );
        let text = snapshot.to_string();
        for expected in [
            "Rates, per second\n  no worker reports any",
            "behind –, oldest –, open orders –, parked keys –",
            "Partners\n  no worker reports any",
            "Alerts\n  not reachable: http://here:3: connection refused",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        let json = serde_json::to_value(&snapshot).unwrap();
        assert_eq!(
            json["read_side"]["open_orders"],
            serde_json::Value::Null,
            "{json}"
        );
    }
}
