//! How soon everything is back: after the broker was restarted or fenced, after the database and the registry were
//! restarted, and after a client of the log has lost the broker for good.
//!
//! "Back" is measured from the first answer that a fresh client gets, and means two things: every process is ready, and
//! an order that is placed then does not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chassis::grpc::Peer;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{PlaceOrderRequest, PlaceOrderWait};
use contracts::{Service, Topic};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use tonic::Request;
use uuid::Uuid;

use crate::chaos::{ChaosRig, KAFKA_CLIENTS, PARTITIONS, PROCESSORS, Scale};
use crate::eventually::within;
use crate::system::order_of;

/// Longest way back to a place in the group, from the broker's first answer; and the limit of a run among other tests,
/// which must not test the machine.
const BACK: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(25)];
/// Longest wait of an order that is placed when everything is ready; and the limit of a run among other tests.
const ORDER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// A client that has lost the broker is replaced within: it fails for some seconds, and is compared with a fresh one.
const REPLACED: Duration = Duration::from_secs(30);
/// Beyond any of the limits: what is later has not come back.
const PATIENCE: Duration = Duration::from_secs(120);
/// Orders placed at once when everything is ready, so that several partitions have one.
const ORDERS: usize = 8;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// So that the broker is fenced after a short freeze.
const SHORT_SESSION: Duration = Duration::from_secs(1);
const FREEZE: Duration = Duration::from_secs(3);
/// The session of the stack's own settings.
const SESSION: Duration = Duration::from_secs(15);
const FENCED: &str = "Fencing broker";

/// Ways back that were measured, by what had happened.
#[derive(Default)]
struct Measured {
    ready: BTreeMap<&'static str, Vec<Duration>>,
    orders: BTreeMap<&'static str, Vec<Duration>>,
}

/// The broker is stopped and started, away for some seconds more each time; then it is fenced at random moments of
/// take-overs; then the database and the registry are restarted.
pub fn recovery(ground: &mut ChaosRig) {
    let mut measured = Measured::default();
    for away in absences(ground) {
        ground.load.goes_on(5);
        ground.stack.control(["stop", "kafka"]);
        ground.lasts(Duration::from_secs(away));
        ground.stack.control(["start", "kafka"]);
        let what = format!("broker away for {away} s");
        measured.back(ground, "broker restarted", &what, log_answers);
    }
    ground.stack.control(["stop", "kafka"]);
    ground.stack.start_kafka(SHORT_SESSION);
    measured.back(ground, "broker restarted", "short session", log_answers);
    let freezes = match ground.form {
        Scale::Short | Scale::Long => 3,
        Scale::Whole => 30,
    };
    let fences: usize = (0..freezes)
        .map(|number| fence(ground, &mut measured, number))
        .sum();
    println!("the broker was fenced in {fences} of {freezes} freezes");
    assert!(fences > 0, "the broker was never fenced");
    ground.stack.control(["stop", "kafka"]);
    ground.stack.start_kafka(SESSION);
    measured.back(ground, "broker restarted", "long session", log_answers);
    let restarts = match ground.form {
        Scale::Short | Scale::Long => 1,
        Scale::Whole => 10,
    };
    for _ in 0..restarts {
        for part in ["postgres", "registry"] {
            ground.load.goes_on(5);
            ground.stack.control(["stop", part]);
            let away = ground.random.u64(1..=ground.form.of(3, 20));
            ground.lasts(Duration::from_secs(away));
            ground.stack.control(["start", part]);
            let what = format!("{part} away for {away} s");
            // The script has waited for its first answer.
            measured.back(ground, "database or registry restarted", &what, |_| ());
        }
    }
    measured.print();
}

/// Seconds for which the broker is away: around the session's time-out, and long before and after it.
fn absences(ground: &mut ChaosRig) -> Vec<u64> {
    match ground.form {
        Scale::Short => vec![5, 12],
        Scale::Long => (0..4).map(|_| ground.random.u64(5..=40)).collect(),
        Scale::Whole => (5..=40).chain(9..=22).collect(),
    }
}

/// A processor is started anew, and the broker is frozen at a random moment of its take-over, until it is fenced. How
/// often it was.
fn fence(ground: &mut ChaosRig, measured: &mut Measured, number: usize) -> usize {
    let service = PROCESSORS[ground.random.usize(..PROCESSORS.len())];
    let name = ground.one_of(service);
    ground.load.goes_on(5);
    let fenced = ground.stack.times_said("kafka", FENCED);
    ground.system.kill(&name);
    ground.start(&name);
    let moment = Duration::from_millis(ground.random.u64(..2_000));
    ground.lasts(moment);
    ground.stack.freeze("kafka");
    ground.lasts(FREEZE);
    ground.stack.thaw("kafka");
    let what = format!("fence {number}, {moment:?} after the start of {name}");
    measured.back(ground, "broker fenced", &what, log_answers);
    // A heartbeat may have come in before the controller looked.
    usize::from(ground.stack.times_said("kafka", FENCED) > fenced)
}

impl Measured {
    /// Waits until everything is back.
    fn back(
        &mut self,
        ground: &mut ChaosRig,
        kind: &'static str,
        what: &str,
        answers: impl FnOnce(&ChaosRig),
    ) {
        answers(ground);
        let began = Instant::now();
        let names = ground.names();
        let mut ready = BTreeMap::new();
        // All at the same time.
        within(PATIENCE * 2, &format!("readiness after: {what}"), || {
            let (mut waiting, elapsed) = (Vec::new(), began.elapsed());
            for name in &names {
                if ground.system.is_ready(name) {
                    ready.entry(name.clone()).or_insert(elapsed);
                } else {
                    waiting.push(name);
                }
            }
            if elapsed > PATIENCE {
                let told = waiting
                    .iter()
                    .map(|name| format!("{name}: {}", ground.system.readiness(name)));
                panic!("{what}: not ready: {}", told.collect::<Vec<_>>().join("; "));
            }
            waiting.is_empty().then_some(())
        });
        let took = began.elapsed();
        let orders = place(ground);
        let slowest = orders.iter().max().copied().unwrap_or_default();
        println!("{what}: everything ready after {took:.1?}, then an order within {slowest:.2?}");
        let limit = usize::from(ground.form == Scale::Short);
        let (back, order) = (BACK[limit], ORDER[limit]);
        let late: BTreeMap<_, _> = ready.iter().filter(|(_, took)| **took > back).collect();
        assert!(took <= back, "{what}: back after {took:.1?}: {late:?}");
        assert!(slowest <= order, "{what}: an order took {slowest:?}");
        self.ready.entry(kind).or_default().push(took);
        self.orders.entry(kind).or_default().extend(orders);
        for name in &names {
            // Panics when it has ended.
            ground.system.ready(name);
        }
    }

    fn print(&mut self) {
        for (what, all) in [("ready", &mut self.ready), ("order", &mut self.orders)] {
            for (kind, times) in all {
                times.sort_unstable();
                let at = |percent: usize| times[(times.len() - 1) * percent / 100];
                println!(
                    "{kind}: {what}: {} times, p50 {:.2?}, p90 {:.2?}, longest {:.2?}",
                    times.len(),
                    at(50),
                    at(90),
                    at(100)
                );
            }
        }
    }
}

/// Places some orders through all gateways at once; how long each took.
fn place(ground: &ChaosRig) -> Vec<Duration> {
    let calls = (0..ORDERS).map(|number| {
        let peer = ground.load.gateway(number);
        let order = PlaceOrderRequest {
            order_id: Uuid::now_v7().to_string(),
            wait: PlaceOrderWait::Created.into(),
            ..order_of(&[("product-000", 1)])
        };
        async move { timed(peer, order).await }
    });
    ground
        .system
        .block_on(futures::future::join_all(calls))
        .into_iter()
        .collect()
}

async fn timed(peer: Peer, order: PlaceOrderRequest) -> Duration {
    let began = Instant::now();
    let mut request = Request::new(order);
    request.set_timeout(PATIENCE);
    let placed = OrderServiceClient::new(peer).place_order(request).await;
    if let Err(status) = placed {
        panic!(
            "an order was not taken after {:?}: {status}",
            began.elapsed()
        );
    }
    began.elapsed()
}

/// Waits until a fresh client gets every answer that a take-over asks for: the end of each partition, and what each
/// group has committed.
fn log_answers(ground: &ChaosRig) {
    let prefix = ground.system.variable("ORDERMESH_PREFIX");
    within(PATIENCE, "the broker answers a fresh client", || {
        Service::ALL
            .into_iter()
            .all(|service| answers(&ground.stack.direct.kafka, prefix, service))
            .then_some(())
    });
}

fn answers(bootstrap: &str, prefix: &str, service: Service) -> bool {
    let client: Result<BaseConsumer, _> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", format!("{prefix}{service}"))
        .set("log_level", "0")
        .create();
    let client = client.expect("the settings are valid");
    let topic = Topic::Commands.of(service, prefix);
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(&topic, 0, PARTITIONS.cast_signed() - 1);
    let answers = client.committed_offsets(asked, LOOKUP_TIMEOUT).is_ok()
        && (0..PARTITIONS.cast_signed()).all(|partition| {
            client
                .fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT)
                .is_ok()
        });
    std::thread::spawn(move || drop(client));
    answers
}

/// Parts of the `client.id`s by which the kinds of clients are told apart.
const KINDS: [&str; 7] = [
    ".consumer-",
    ".producer-",
    ".lookups-",
    ".reader-",
    ".tail-",
    "commands-",
    ".projector-",
];

/// Each client of the log loses the broker for good, one after the other, while the broker is well.
pub fn clients(ground: &mut ChaosRig) {
    let mut measured = Measured::default();
    let mut lost: BTreeMap<String, usize> = BTreeMap::new();
    for service in KAFKA_CLIENTS {
        let known = ground.stack.kafka[service].clients();
        for kind in KINDS {
            let prefix = ground.system.variable("ORDERMESH_PREFIX").to_owned();
            let of_kind: Vec<_> = known
                .iter()
                .filter(|id| id.starts_with(&prefix) && id.contains(kind))
                .cloned()
                .collect();
            let is_left_out = ground.form == Scale::Short && !matches!(service, "orders" | "query");
            if of_kind.is_empty() || is_left_out {
                continue;
            }
            let victim = of_kind[ground.random.usize(..of_kind.len())].clone();
            let proxy = &ground.stack.kafka[service];
            proxy.lose(&victim);
            proxy.reset();
            let what = format!("{victim} has lost the broker");
            if kind == ".reader-" {
                // It is needed at take-over only: of the partitions of the other process.
                let name = victim_process(ground, &victim);
                let other = ground.other(&name);
                ground.system.kill(&other);
                ground.progress(&what, "query");
                ground.start(&other);
            } else {
                ground.progress(&what, "query");
            }
            measured.replaced(ground, service, &known, &victim);
            // A process that is started anew gives its clients the same names.
            ground.stack.kafka[service].let_pass(&victim);
            *lost.entry(kind.to_owned()).or_default() += 1;
        }
    }
    println!("lost and replaced: {lost:?}");
    assert_eq!(lost.len(), KINDS.len(), "some clients have other names");
    measured.print();
}

/// The process whose client this is.
fn victim_process(ground: &ChaosRig, client_id: &str) -> String {
    let names = ground.names().into_iter();
    let mut owners = names.filter(|name| client_id.contains(&format!(".{name}.")));
    owners.next().expect("it is a worker's client")
}

impl Measured {
    /// Waits until the victim's successor has come, and everything is back.
    fn replaced(
        &mut self,
        ground: &mut ChaosRig,
        service: &str,
        known: &BTreeSet<String>,
        victim: &str,
    ) {
        let what = format!("{victim} has lost the broker");
        let began = Instant::now();
        let (name, _) = victim.rsplit_once('-').expect("it has a number");
        within(REPLACED, &format!("a successor after: {what}"), || {
            let now = ground.stack.kafka[service].clients();
            let is_successor = |id: &&String| id.rsplit_once('-').is_some_and(|(of, _)| of == name);
            now.difference(known)
                .any(|id| is_successor(&id))
                .then_some(())
        });
        println!("{what}: replaced after {:.1?} more", began.elapsed());
        self.back(ground, "client lost", &what, |_| ());
    }
}
