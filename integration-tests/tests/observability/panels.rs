//! Every panel of every dashboard shows data for a system under load: its queries are sent to a real Prometheus.

use std::collections::BTreeSet;

use contracts::orders::v1::OrderStatus;
use contracts::sandbox::v1::{Behaviour, Faults};
use contracts::{Service, Topic};
use dashboards::{Dashboard, Panel, Query};
use harness::eventually;
use harness::prometheus::{Prometheus, Sample};
use harness::system::{SERVICES, System, free_port, order_of};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tonic::Code;
use uuid::Uuid;

use super::programs;
use harness::basket_load::{load, wait_for_acknowledged, wait_for_load};

/// The role that reports the offsets of all groups.
const LAG: &str = "lag";
/// The role that audits.
const AUDITOR: &str = "auditor";

/// Metrics that are not provoked here, with the reason; their panels show 0.
const UNPROVOKED: &[(&str, &str)] = &[(
    "ALERTS{",
    "rules are not loaded here: alerts have their own tests",
)];

#[test]
fn every_panel_shows_data_of_a_loaded_system() {
    let Some(programs) = programs("dashboards") else {
        return;
    };
    let mut system = System::new();
    configure(&mut system);
    let names: Vec<_> = SERVICES.into_iter().chain([LAG, AUDITOR]).collect();
    for name in &names {
        system.start(name);
    }
    let processes: Vec<_> = names.iter().map(|name| system.admin(name)).collect();
    let away = ["collector", "alertmanager"];
    let prometheus = Prometheus::start(&programs, &processes, &away, system.path("prometheus"));
    for name in &names {
        system.wait_until_ready(name);
    }
    provoke_everything(&system);

    let mut queries = PendingQueries(PanelQuery::all());
    eventually("every panel has data", || {
        let pending = &mut queries.0;
        pending.retain_mut(|query| !query.has_data(&prometheus));
        pending.is_empty().then_some(())
    });
    for dashboard in dashboards::all() {
        for variable in &dashboard.variables {
            let values = prometheus.values(variable.label, variable.metric).unwrap();
            assert!(!values.is_empty(), "{}: {variable:?}", dashboard.title);
        }
    }
}

/// Partners that fail sometimes, and short time-outs of payments.
fn configure(system: &mut System) {
    let unreachable = format!("http://{}", free_port());
    for (name, value) in [
        ("ORDERMESH_SANDBOX_DECLINE_PERCENT", "5"),
        ("ORDERMESH_SANDBOX_REFUSE_PERCENT", "5"),
        ("ORDERMESH_SANDBOX_REFUND_REFUSE_PERCENT", "50"),
        ("ORDERMESH_SANDBOX_PROVIDER_ERROR_PERCENT", "10"),
        ("ORDERMESH_SANDBOX_PROVIDER_SLOW_PERCENT", "20"),
        ("ORDERMESH_SANDBOX_PROVIDER_SLOW_MS", "300"),
        ("ORDERMESH_SANDBOX_CARRIER_ERROR_PERCENT", "10"),
        ("ORDERMESH_PAYMENTS_REFUND_WAIT_MS", "50"),
        ("ORDERMESH_ORDERS_PAYMENT_WAIT_MS", "5000"),
        ("ORDERMESH_AUDIT_EVERY_MS", "1000"),
        // Every order is traced; its spans are not delivered.
        ("ORDERMESH_TRACE_RATIO", "1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &unreachable),
    ] {
        system.set(name, value);
    }
}

/// Orders with every outcome, an outage, and invalid calls and records.
fn provoke_everything(system: &System) {
    let mut load = load(system);
    wait_for_acknowledged(system, 300);
    write_garbage(system);
    send_failing_calls(system);
    wait_for_load(system, &mut load);

    system.stock("mug", 1_000);
    system.behave(Behaviour {
        provider: Some(Faults {
            outage: true,
            ..Faults::default()
        }),
        delivery_ms: 50,
        refuse_percent: 50,
        refund_refuse_percent: 50,
        ..Behaviour::default()
    });
    let place = || system.place(order_of(&[("mug", 2)])).unwrap().order_id;
    let waiting: Vec<_> = (0..20).map(|_| place()).collect();
    for order_id in &waiting[..5] {
        system.wait_for_status(order_id, OrderStatus::AwaitingPayment);
        system.cancel(order_id).unwrap();
    }
    eventually("timers fire", || {
        let fired = "ordermesh_engine_timers_fired_total{service=\"orders\"} ";
        (system.metric("orders", fired) > Some(0.0)).then_some(())
    });
    system.behave(Behaviour {
        delivery_ms: 50,
        refuse_percent: 50,
        refund_refuse_percent: 50,
        ..Behaviour::default()
    });
    let more: Vec<_> = (0..40).map(|_| place()).collect();
    for order_id in waiting.iter().chain(&more) {
        eventually(&format!("{order_id} ends"), || {
            let status = system.order(order_id, 0).ok()?.status();
            [
                OrderStatus::Delivered,
                OrderStatus::Rejected,
                OrderStatus::Cancelled,
            ]
            .contains(&status)
            .then_some(())
        });
    }
}

/// Writes a record that is not a command and becomes a dead letter.
fn write_garbage(system: &System) {
    let topic = Topic::Commands.of(Service::Orders, system.variable("ORDERMESH_PREFIX"));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", system.variable("ORDERMESH_KAFKA"))
        .create()
        .unwrap();
    let record = BaseRecord::<[u8], [u8]>::to(&topic).payload(b"garbage");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(std::time::Duration::from_secs(10)).unwrap();
}

/// Calls that fail, one of them with a malformed trace context.
fn send_failing_calls(system: &System) {
    let unknown = Uuid::now_v7().to_string();
    let status = system.order(&unknown, 0).unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let url = format!("http://{}/v1/orders/{unknown}", system.public);
    let response = system.curl(&["-H", "traceparent: nonsense"], &url);
    assert!(response.wait_with_output().unwrap().status.success());
}

/// A query of a panel, with all values of the dashboard variables selected.
struct PanelQuery {
    dashboard: &'static str,
    panel: &'static str,
    query: Query,
    expression: String,
    why: String,
}

impl PanelQuery {
    fn all() -> Vec<Self> {
        let of_panel = |dashboard: &Dashboard, panel: &Panel| {
            let variables: BTreeSet<_> = dashboard
                .variables
                .iter()
                .map(|variable| variable.label)
                .collect();
            let (dashboard, panel, queries) = (dashboard.title, panel.title, panel.queries.clone());
            queries.into_iter().map(move |query| Self {
                dashboard,
                panel,
                expression: expression(&query, &variables),
                query,
                why: String::new(),
            })
        };
        dashboards::all()
            .iter()
            .flat_map(|dashboard| {
                dashboard
                    .panels()
                    .flat_map(|panel| of_panel(dashboard, panel))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Whether the query returns numbers. Prints what it returns.
    fn has_data(&mut self, prometheus: &Prometheus) -> bool {
        match prometheus.query(&self.expression) {
            Err(error) => panic!(
                "{}: {}: {error}: {}",
                self.dashboard, self.panel, self.expression
            ),
            Ok(samples) if samples.iter().any(|sample| !sample.value.is_nan()) => {
                for sample in &samples {
                    self.show(sample);
                }
                true
            }
            Ok(samples) => {
                self.why = format!("{samples:?}");
                false
            }
        }
    }

    fn show(&self, sample: &Sample) {
        let mut legend = self.query.legend.clone();
        for label in self.query.labels() {
            let value = sample.labels[label].as_str().unwrap_or_default();
            legend = legend.replace(&format!("{{{{{label}}}}}"), value);
        }
        println!(
            "{} | {} | {legend} | {:.4}",
            self.dashboard, self.panel, sample.value
        );
    }
}

/// The query as Grafana sends it, without the fallback 0 for missing series, so that unknown names and labels are
/// detected. The tests of each metric's owner show that its value changes.
fn expression(query: &Query, variables: &BTreeSet<&str>) -> String {
    let quiet = UNPROVOKED
        .iter()
        .any(|(part, _)| query.promql.contains(part));
    let mut expression = if quiet {
        query.expression()
    } else {
        query.promql.clone()
    };
    for (variable, value) in [("$__rate_interval", "2m"), ("$__range", "10m")] {
        expression = expression.replace(variable, value);
    }
    for variable in variables {
        expression = expression.replace(&format!("${variable}\""), ".*\"");
    }
    assert!(!expression.contains('$'), "{expression}");
    expression
}

/// Queries without data so far. They are printed when the test fails.
struct PendingQueries(Vec<PanelQuery>);

impl Drop for PendingQueries {
    fn drop(&mut self) {
        for query in &self.0 {
            println!(
                "no data: {}: {}: {}: {}",
                query.dashboard, query.panel, query.expression, query.why
            );
        }
    }
}
