//! One order is one complete trace: every record of an order in the log has a span in its place.

use std::collections::BTreeMap;

use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{CancelOrderRequest, OrderStatus};
use contracts::sandbox::v1::{Behaviour, Faults};
use harness::eventually;
use harness::jaeger::{Jaeger, Programs, Span, Trace};
use harness::system::{FAULTLESS, PROVIDER_OUTAGE, SERVICES, System, order_of};
use serde::Deserialize;
use tonic::Request;

use super::found;

/// Sampling settings of the collector.
const KEEP_ALL: [(&str, &str); 1] = [("ORDERMESH_TRACE_WAIT", "1s")];
const KEEP_FAILED_AND_SLOW: [(&str, &str); 3] = [
    ("ORDERMESH_TRACE_WAIT", "10s"),
    ("ORDERMESH_TRACE_SLOW_MS", "5000"),
    ("ORDERMESH_TRACE_KEEP_PERCENT", "0"),
];

/// Every topic with records of an order.
const TOPICS: [&str; 8] = [
    "orders.commands",
    "orders.events",
    "inventory.commands",
    "inventory.events",
    "payments.commands",
    "payments.events",
    "shipping.commands",
    "shipping.events",
];

#[test]
fn an_order_is_one_complete_trace_in_every_outcome() {
    let Some(programs) = found("traces", Programs::find()) else {
        return;
    };
    let mut system = System::new();
    let jaeger = Jaeger::start(&programs, system.path("jaeger"), &KEEP_ALL);
    system.set("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.endpoint());
    // The client starts the traces; the system follows its sampling decision and records no others.
    system.set("ORDERMESH_TRACE_RATIO", "0");
    system.set("ORDERMESH_ORDERS_PAYMENT_WAIT_MS", "8000");
    system.set("ORDERMESH_PAYMENTS_REFUND_WAIT_MS", "50");
    for service in SERVICES {
        system.start(service);
    }
    for service in SERVICES {
        system.wait_until_ready(service);
    }
    system.stock("mug", 1_000);

    let orders = orders_of_every_outcome(&mut system);
    for order in &orders {
        let records = records_of(&system, &order.id);
        let mut problems = TraceProblems(order, Vec::new());
        eventually("the trace is complete", || {
            problems.1 = match jaeger.trace(&order.trace) {
                Some(trace) => TraceCheck::new(&trace, order, &records).problems(),
                None => vec!["it has not arrived".into()],
            };
            problems.1.is_empty().then_some(())
        });
    }
    batches_are_linked(&jaeger, &orders);
}

#[test]
fn sampling_keeps_failed_and_slow_traces() {
    let Some(programs) = found("tail sampling", Programs::find()) else {
        return;
    };
    let mut system = System::new();
    let jaeger = Jaeger::start(&programs, system.path("jaeger"), &KEEP_FAILED_AND_SLOW);
    system.set("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.endpoint());
    system.set("ORDERMESH_TRACE_RATIO", "0");
    system.start_until_ready("all");
    system.stock("mug", 10);

    let plain = Order::place(&system, "plain", "mug", 1);
    system.wait_for_status(&plain.id, OrderStatus::Delivered);
    system.behave(PROVIDER_OUTAGE);
    let failed = Order::place(&system, "failed", "mug", 1);
    let unknown = "ordermesh_engine_effects_total{result=\"unknown\",service=\"payments\",target=\"payment-provider\"} ";
    eventually("a charge has failed", || {
        (system.metric("all", unknown) > Some(0.0)).then_some(())
    });
    system.behave(FAULTLESS);
    system.wait_for_status(&failed.id, OrderStatus::Delivered);
    system.behave(Behaviour {
        delivery_ms: 7_000,
        ..FAULTLESS
    });
    let slow = Order::place(&system, "slow", "mug", 1);
    system.wait_for_status(&slow.id, OrderStatus::Delivered);

    for order in [&failed, &slow] {
        eventually(&format!("the {} one is kept", order.ending), || {
            jaeger.trace(&order.trace)
        });
    }
    // The sampling decision preceded them.
    assert!(
        jaeger.trace(&plain.trace).is_none(),
        "a trace without problems was kept"
    );
}

/// Problems of a trace, printed when the test fails.
struct TraceProblems<'a>(&'a Order, Vec<String>);

impl Drop for TraceProblems<'_> {
    fn drop(&mut self) {
        for what in &self.1 {
            println!("{} {}: {what}", self.0.ending, self.0.trace);
        }
    }
}

/// An order and the trace that its client started.
struct Order {
    ending: &'static str,
    id: String,
    trace: String,
    /// Ids of the client's own spans, which it does not export.
    client: Vec<String>,
}

impl Order {
    /// Places an order in a new trace.
    fn place(system: &System, ending: &'static str, sku: &str, quantity: u32) -> Self {
        let mut order = Self {
            ending,
            id: String::new(),
            trace: format!("{:032x}", fastrand::u128(1..)),
            client: Vec::new(),
        };
        let request = order.within(order_of(&[(sku, quantity)]));
        let placed = system
            .block_on(OrderServiceClient::new(system.channel()).place_order(request))
            .unwrap();
        order.id = placed.into_inner().order_id;
        order
    }

    fn cancel(&mut self, system: &System) {
        let request = self.within(CancelOrderRequest {
            order_id: self.id.clone(),
            customer_id: "ada".into(),
        });
        system
            .block_on(OrderServiceClient::new(system.channel()).cancel_order(request))
            .unwrap();
    }

    /// A request in the order's trace.
    fn within<T>(&mut self, message: T) -> Request<T> {
        let span = format!("{:016x}", fastrand::u64(1..));
        let parent = format!("00-{}-{span}-01", self.trace);
        self.client.push(span);
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("traceparent", parent.parse().unwrap());
        request
    }
}

/// One order of every outcome, and one whose payment is taken over by another process.
fn orders_of_every_outcome(system: &mut System) -> Vec<Order> {
    let mut orders = Vec::new();
    let mut ends = |system: &System, order: Order, status| {
        system.wait_for_status(&order.id, status);
        orders.push(order);
    };
    let order = Order::place(system, "delivered", "mug", 2);
    ends(system, order, OrderStatus::Delivered);
    let order = Order::place(system, "out of stock", "unknown-mug", 1);
    ends(system, order, OrderStatus::Rejected);

    system.behave(Behaviour {
        decline_percent: 100,
        ..FAULTLESS
    });
    let order = Order::place(system, "declined", "mug", 1);
    ends(system, order, OrderStatus::Rejected);
    system.behave(Behaviour {
        refuse_percent: 100,
        refund_refuse_percent: 50,
        ..FAULTLESS
    });
    let order = Order::place(system, "undeliverable", "mug", 1);
    ends(system, order, OrderStatus::Rejected);

    system.behave(Behaviour {
        carrier: Some(Faults {
            slow_percent: 100,
            slow_ms: 3_000,
            ..Faults::default()
        }),
        ..FAULTLESS
    });
    let mut order = Order::place(system, "cancelled after payment", "mug", 1);
    system.wait_for_status(&order.id, OrderStatus::Confirmed);
    order.cancel(system);
    system.behave(FAULTLESS);
    ends(system, order, OrderStatus::Cancelled);

    system.behave(PROVIDER_OUTAGE);
    let expired = Order::place(system, "expired", "mug", 1);
    let mut cancelled = Order::place(system, "cancelled before payment", "mug", 1);
    system.wait_for_status(&cancelled.id, OrderStatus::AwaitingPayment);
    cancelled.cancel(system);
    system.wait_for_status(&expired.id, OrderStatus::Cancelling);
    system.behave(FAULTLESS);
    ends(system, expired, OrderStatus::Rejected);
    ends(system, cancelled, OrderStatus::Cancelled);

    system.behave(PROVIDER_OUTAGE);
    let order = Order::place(system, "taken over", "mug", 1);
    system.wait_for_status(&order.id, OrderStatus::AwaitingPayment);
    // Terminated, not killed: a killed process loses its last spans.
    assert!(system.terminate("payments").success());
    system.behave(FAULTLESS);
    system.start_until_ready("payments");
    ends(system, order, OrderStatus::Delivered);
    orders
}

/// A record of the log, as far as it is used here.
#[derive(Debug, Deserialize)]
struct Record {
    topic: String,
    partition: i32,
    offset: i64,
    kind: String,
    headers: BTreeMap<String, String>,
}

impl Record {
    /// Trace id and span id of its context.
    fn context(&self) -> Option<(&str, &str)> {
        let mut parts = self.headers.get("traceparent")?.split('-').skip(1);
        Some((parts.next()?, parts.next()?))
    }

    fn is_event(&self) -> bool {
        self.topic.ends_with(".events")
    }

    /// Whether a span belongs to this record.
    fn is_of(&self, span: &Span) -> bool {
        let place = (
            span.tag("messaging.destination.name"),
            span.tag("messaging.destination.partition.id"),
            span.tag("messaging.kafka.offset"),
        );
        place
            == (
                Some(self.topic.clone()),
                Some(self.partition.to_string()),
                Some(self.offset.to_string()),
            )
    }
}

/// All records of an order.
fn records_of(system: &System, order_id: &str) -> Vec<Record> {
    let mut arguments = vec![
        "events",
        "tail",
        "--json",
        "--no-follow",
        "--order",
        order_id,
    ];
    for topic in TOPICS {
        arguments.extend(["--topic", topic]);
    }
    let prefix = system.variable("ORDERMESH_PREFIX");
    let text = system.run(&arguments);
    let records: Vec<Record> = text
        .lines()
        .map(|line| {
            let mut record: Record = serde_json::from_str(line).unwrap();
            record.topic = record.topic.strip_prefix(prefix).unwrap().to_owned();
            record
        })
        .collect();
    for topic in ["orders.commands", "orders.events", "inventory.commands"] {
        assert!(
            records.iter().any(|record| record.topic == topic),
            "{order_id} has nothing in {topic}"
        );
    }
    records
}

/// Checks a trace against the log.
struct TraceCheck<'a> {
    trace: &'a Trace,
    order: &'a Order,
    records: &'a [Record],
    faults: Vec<String>,
}

impl<'a> TraceCheck<'a> {
    fn new(trace: &'a Trace, order: &'a Order, records: &'a [Record]) -> Self {
        Self {
            trace,
            order,
            records,
            faults: Vec::new(),
        }
    }

    fn problems(mut self) -> Vec<String> {
        self.check_parents();
        for record in self.records {
            self.check_record(record);
        }
        for span in &self.trace.spans {
            self.check_span(span);
        }
        self.faults
    }

    fn add_problem(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Every span has a parent in the trace, up to the calls of the client.
    fn check_parents(&mut self) {
        for span in &self.trace.spans {
            let known = span.parent().is_some_and(|parent| {
                self.trace.span(parent).is_some()
                    || self.order.client.iter().any(|client| client == parent)
            });
            if !known {
                self.add_problem(format!("{} has no parent", span.operation_name));
            }
        }
        for client in &self.order.client {
            let calls: Vec<_> = self.trace.children(client).collect();
            let gateway = calls
                .iter()
                .all(|span| self.trace.service(span) == "gateway");
            if calls.len() != 1 || !gateway {
                self.add_problem(format!("a call of the client is {} spans", calls.len()));
            }
        }
    }

    /// The context of a record is a span of this trace, and every consumer of the record has a span directly below
    /// that.
    fn check_record(&mut self, record: &Record) {
        let what = format!("{} {} at {}", record.topic, record.kind, record.offset);
        let Some((trace, parent)) = record.context() else {
            return self.add_problem(format!("{what} carries no context"));
        };
        if trace != self.order.trace {
            return self.add_problem(format!("{what} belongs to trace {trace}"));
        }
        let Some(sender) = self.trace.span(parent) else {
            return self.add_problem(format!("the sender of {what} is missing"));
        };
        let sent_by = if record.is_event() { "process " } else { "" };
        if !sender.operation_name.starts_with(sent_by) {
            self.add_problem(format!("{what} was sent by {}", sender.operation_name));
        }
        let (verb, reader) = if record.is_event() {
            ("project", "query")
        } else {
            (
                "process",
                record.topic.split('.').next().unwrap_or_default(),
            )
        };
        let name = format!("{verb} {}", record.kind);
        let mut readers = self
            .trace
            .children(parent)
            .filter(|span| span.operation_name == name && record.is_of(span) && span.is_ok());
        match (readers.next(), readers.next()) {
            (Some(span), None) if self.trace.service(span) == reader => {}
            (None, _) => self.add_problem(format!("no span {name} of {what}")),
            _ => self.add_problem(format!(
                "several spans {name} of {what}, or not of {reader}"
            )),
        }
    }

    /// Every span has the attributes of the conventions, and the children that its kind requires.
    fn check_span(&mut self, span: &Span) {
        let (verb, rest) = span.operation_name.split_once(' ').unwrap_or_default();
        let has = |key: &str, value: &str| span.tag(key).as_deref() == Some(value);
        let right = match verb {
            "send" => {
                has("span.kind", "producer")
                    && has("messaging.system", "kafka")
                    && has("messaging.operation.type", "send")
            }
            "process" => {
                has("span.kind", "consumer")
                    && has("messaging.system", "kafka")
                    && has("messaging.operation.type", "process")
                    && has("messaging.consumer.group.name", self.trace.service(span))
            }
            "project" => has("span.kind", "consumer") && has("db.system.name", "postgresql"),
            "perform" => self.reached_its_partner(span, rest),
            _ => has("rpc.system", "grpc") && self.has_order_id(span),
        };
        if !right {
            self.add_problem(format!(
                "{} is not as it should be: {span:?}",
                span.operation_name
            ));
        }
    }

    /// A call of the orders API carries the order id.
    fn has_order_id(&self, span: &Span) -> bool {
        let is_served = self.trace.service(span) == "orders"
            && span.tag("span.kind").as_deref() == Some("server");
        !is_served || span.tag("order_id").as_deref() == Some(self.order.id.as_str())
    }

    /// The span tree reaches the partner's own span, unless the call failed on its way or was cancelled before it was
    /// sent.
    fn reached_its_partner(&self, span: &Span, target: &str) -> bool {
        let mut below: Vec<_> = self.trace.children(&span.id).collect();
        while let Some(child) = below.pop() {
            if self.trace.service(child) == "sandbox" {
                return !target.is_empty();
            }
            below.extend(self.trace.children(&child.id));
        }
        !span.is_ok() || span.tag("ordermesh.outcome").as_deref() == Some("abandoned")
    }
}

/// The transactions that contain these orders have traces of their own, with links to the order traces.
fn batches_are_linked(jaeger: &Jaeger, orders: &[Order]) {
    for (service, batch) in [
        ("orders", "transaction orders"),
        ("payments", "transaction payments"),
        ("query", "project batch"),
    ] {
        eventually(&format!("{batch} is linked"), || {
            let traces = jaeger.traces(service, batch);
            let linked = traces.iter().flat_map(|trace| &trace.spans).any(|span| {
                span.operation_name == batch
                    && span.parent().is_none()
                    && span
                        .links()
                        .any(|(trace, _)| orders.iter().any(|order| order.trace == trace))
            });
            linked.then_some(())
        });
    }
}
