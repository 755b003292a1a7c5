//! Recovery times: after a restart or a fencing of the broker, after a restart of the database or the registry, and
//! after a client of the log has lost the broker permanently.
//!
//! Recovery is measured from the first answer that a fresh client gets. It ends when every process is ready and an
//! order that is placed then is not delayed.

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

/// Upper limit of the time until every process is ready. The second value is for runs among other tests, which must not
/// measure the machine.
const RECOVERY_LIMIT: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(25)];
/// Upper limit of the time of an order that is placed when every process is ready. The second value is as above.
const ORDER_LIMIT: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// Upper limit of the replacement of a client that has lost the broker: it fails for some seconds, and is then compared
/// with a fresh client.
const REPLACEMENT_LIMIT: Duration = Duration::from_secs(30);
/// Beyond this the system counts as not recovered.
const DEADLINE: Duration = Duration::from_secs(120);
/// Orders placed at once when every process is ready, so that several partitions get one.
const ORDERS: usize = 8;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Short enough that the broker is fenced after a short freeze.
const SHORT_SESSION: Duration = Duration::from_secs(1);
const FREEZE: Duration = Duration::from_secs(3);
/// The session of the stack's own settings.
const SESSION: Duration = Duration::from_secs(15);
const FENCED: &str = "Fencing broker";

/// Measured recovery times by kind of fault.
#[derive(Default)]
struct RecoveryTimes {
    ready: BTreeMap<&'static str, Vec<Duration>>,
    orders: BTreeMap<&'static str, Vec<Duration>>,
}

/// Restarts the broker with outages of several lengths, fences it at random moments of take-overs, then restarts the
/// database and the registry.
pub fn recovery(rig: &mut ChaosRig) {
    let mut times = RecoveryTimes::default();
    for away in outage_seconds(rig) {
        rig.load.wait_for_orders(5);
        rig.stack.control(["stop", "kafka"]);
        rig.hold_fault(Duration::from_secs(away));
        rig.stack.control(["start", "kafka"]);
        let what = format!("broker away for {away} s");
        times.record_recovery(rig, "broker restarted", &what, wait_for_log);
    }
    rig.stack.control(["stop", "kafka"]);
    rig.stack.start_kafka(SHORT_SESSION);
    times.record_recovery(rig, "broker restarted", "short session", wait_for_log);
    let freezes = match rig.scale {
        Scale::Short | Scale::Long => 3,
        Scale::Full => 30,
    };
    let fences: usize = (0..freezes)
        .map(|number| fence(rig, &mut times, number))
        .sum();
    println!("the broker was fenced in {fences} of {freezes} freezes");
    assert!(fences > 0, "the broker was never fenced");
    rig.stack.control(["stop", "kafka"]);
    rig.stack.start_kafka(SESSION);
    times.record_recovery(rig, "broker restarted", "long session", wait_for_log);
    let restarts = match rig.scale {
        Scale::Short | Scale::Long => 1,
        Scale::Full => 10,
    };
    for _ in 0..restarts {
        for part in ["postgres", "registry"] {
            rig.load.wait_for_orders(5);
            rig.stack.control(["stop", part]);
            let away = rig.random.u64(1..=rig.scale.select(3, 20));
            rig.hold_fault(Duration::from_secs(away));
            rig.stack.control(["start", part]);
            let what = format!("{part} away for {away} s");
            // The script has waited until it answers.
            times.record_recovery(rig, "database or registry restarted", &what, |_| ());
        }
    }
    times.print();
}

/// Lengths of the broker's outages in seconds: around the session time-out, and much shorter and longer.
fn outage_seconds(rig: &mut ChaosRig) -> Vec<u64> {
    match rig.scale {
        Scale::Short => vec![5, 12],
        Scale::Long => (0..4).map(|_| rig.random.u64(5..=40)).collect(),
        Scale::Full => (5..=40).chain(9..=22).collect(),
    }
}

/// Restarts a processor and freezes the broker at a random moment of its take-over for longer than the broker's
/// session. Returns 1 when the controller has fenced the broker, otherwise 0.
fn fence(rig: &mut ChaosRig, times: &mut RecoveryTimes, number: usize) -> usize {
    let service = PROCESSORS[rig.random.usize(..PROCESSORS.len())];
    let name = rig.random_replica(service);
    rig.load.wait_for_orders(5);
    let fenced = rig.stack.count_log_lines("kafka", FENCED);
    rig.system.kill(&name);
    rig.start(&name);
    let moment = Duration::from_millis(rig.random.u64(..2_000));
    rig.hold_fault(moment);
    rig.stack.freeze("kafka");
    rig.hold_fault(FREEZE);
    rig.stack.thaw("kafka");
    let what = format!("fence {number}, {moment:?} after the start of {name}");
    times.record_recovery(rig, "broker fenced", &what, wait_for_log);
    // A heartbeat may have arrived before the controller checked.
    usize::from(rig.stack.count_log_lines("kafka", FENCED) > fenced)
}

impl RecoveryTimes {
    /// Waits until the system has recovered, and records the times.
    fn record_recovery(
        &mut self,
        rig: &mut ChaosRig,
        kind: &'static str,
        what: &str,
        answers: impl FnOnce(&ChaosRig),
    ) {
        answers(rig);
        let began = Instant::now();
        let names = rig.names();
        let mut ready = BTreeMap::new();
        // All processes are polled in the same loop, so that each gets its own time.
        within(DEADLINE * 2, &format!("readiness after: {what}"), || {
            let (mut waiting, elapsed) = (Vec::new(), began.elapsed());
            for name in &names {
                if rig.system.is_ready(name) {
                    ready.entry(name.clone()).or_insert(elapsed);
                } else {
                    waiting.push(name);
                }
            }
            if elapsed > DEADLINE {
                let reasons = waiting
                    .iter()
                    .map(|name| format!("{name}: {}", rig.system.readiness(name)));
                panic!(
                    "{what}: not ready: {}",
                    reasons.collect::<Vec<_>>().join("; ")
                );
            }
            waiting.is_empty().then_some(())
        });
        let took = began.elapsed();
        let orders = place_orders(rig);
        let slowest = orders.iter().max().copied().unwrap_or_default();
        println!("{what}: everything ready after {took:.1?}, then an order within {slowest:.2?}");
        let limit = usize::from(rig.scale == Scale::Short);
        let (back, order) = (RECOVERY_LIMIT[limit], ORDER_LIMIT[limit]);
        let late: BTreeMap<_, _> = ready.iter().filter(|(_, took)| **took > back).collect();
        assert!(took <= back, "{what}: back after {took:.1?}: {late:?}");
        assert!(slowest <= order, "{what}: an order took {slowest:?}");
        self.ready.entry(kind).or_default().push(took);
        self.orders.entry(kind).or_default().extend(orders);
        for name in &names {
            // Panics when the process has ended.
            rig.system.wait_until_ready(name);
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

/// Places orders through all gateways at once. Returns how long each took.
fn place_orders(rig: &ChaosRig) -> Vec<Duration> {
    let calls = (0..ORDERS).map(|number| {
        let peer = rig.load.gateway(number);
        let order = PlaceOrderRequest {
            order_id: Uuid::now_v7().to_string(),
            wait: PlaceOrderWait::Created.into(),
            ..order_of(&[("product-000", 1)])
        };
        async move { time_order(peer, order).await }
    });
    rig.system
        .block_on(futures::future::join_all(calls))
        .into_iter()
        .collect()
}

async fn time_order(peer: Peer, order: PlaceOrderRequest) -> Duration {
    let began = Instant::now();
    let mut request = Request::new(order);
    request.set_timeout(DEADLINE);
    let placed = OrderServiceClient::new(peer).place_order(request).await;
    if let Err(status) = placed {
        panic!(
            "an order was not taken after {:?}: {status}",
            began.elapsed()
        );
    }
    began.elapsed()
}

/// Waits until a fresh client gets every answer that a take-over needs: the end of each partition and the committed
/// offsets of each group.
fn wait_for_log(rig: &ChaosRig) {
    let prefix = rig.system.variable("ORDERMESH_PREFIX");
    within(DEADLINE, "the broker answers a fresh client", || {
        Service::ALL
            .into_iter()
            .all(|service| log_responds(&rig.stack.direct.kafka, prefix, service))
            .then_some(())
    });
}

fn log_responds(bootstrap: &str, prefix: &str, service: Service) -> bool {
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

/// Parts of the `client.id`s that identify the kinds of clients.
const KINDS: [&str; 7] = [
    ".consumer-",
    ".producer-",
    ".lookups-",
    ".reader-",
    ".tail-",
    "commands-",
    ".projector-",
];

/// A client in use sends a request at least this often.
const ACTIVE_WITHIN: Duration = Duration::from_secs(3);

/// Each kind of Kafka client loses the broker permanently, one after the other, while the broker itself is healthy.
pub fn clients(rig: &mut ChaosRig) {
    let mut times = RecoveryTimes::default();
    let mut lost: BTreeMap<String, usize> = BTreeMap::new();
    for service in KAFKA_CLIENTS {
        for kind in KINDS {
            let proxy = &rig.stack.kafka[service];
            let active = proxy.active_clients(ACTIVE_WITHIN);
            // A reader may be idle; of the other kinds, one that sends nothing has been replaced already.
            let in_use = if kind == ".reader-" {
                proxy.clients()
            } else {
                active.clone()
            };
            let prefix = rig.system.variable("ORDERMESH_PREFIX");
            let candidates: Vec<_> = in_use
                .iter()
                .filter(|id| id.starts_with(prefix) && id.contains(kind))
                .collect();
            let is_left_out = rig.scale == Scale::Short && !matches!(service, "orders" | "query");
            if candidates.is_empty() || is_left_out {
                continue;
            }
            let victim = candidates[rig.random.usize(..candidates.len())].clone();
            let disconnected = Instant::now();
            proxy.disconnect_client(&victim);
            proxy.reset();
            let what = format!("{victim} has lost the broker");
            if kind == ".reader-" {
                // A reader is needed only at a take-over, here of the other process's partitions.
                let name = victim_process(rig, &victim);
                let other = rig.other_replica(&name);
                rig.system.kill(&other);
                rig.wait_for_progress(&what, "query");
                rig.start(&other);
            } else {
                rig.wait_for_progress(&what, "query");
            }
            times.record_replacement(rig, service, (&active, disconnected), &victim);
            // A restarted process gives its clients the same names.
            rig.stack.kafka[service].reconnect_client(&victim);
            *lost.entry(kind.to_owned()).or_default() += 1;
        }
    }
    println!("lost and replaced: {lost:?}");
    assert_eq!(lost.len(), KINDS.len(), "some clients have other names");
    times.print();
}

/// The process that owns a client.
fn victim_process(rig: &ChaosRig, client_id: &str) -> String {
    let names = rig.names().into_iter();
    let mut owners = names.filter(|name| client_id.contains(&format!(".{name}.")));
    owners.next().expect("it is a worker's client")
}

impl RecoveryTimes {
    /// Waits until the lost client is replaced and the system has recovered.
    fn record_replacement(
        &mut self,
        rig: &mut ChaosRig,
        service: &str,
        (active_before, disconnected): (&BTreeSet<String>, Instant),
        victim: &str,
    ) {
        let what = format!("{victim} has lost the broker");
        let began = Instant::now();
        let (name, number) = victim.rsplit_once('-').expect("it has a number or an id");
        // An earlier process may have had a client of that name, but it sends nothing.
        let next_number = number.parse::<u32>().map(|number| number + 1);
        let successor = next_number.map(|number| format!("{name}-{number}"));
        let is_successor = |id: &String| match &successor {
            Ok(successor) => id == successor,
            // A new client has a new id, and the other processes have clients too.
            Err(_) => id.starts_with(name) && id != victim && !active_before.contains(id),
        };
        within(
            REPLACEMENT_LIMIT,
            &format!("a successor after: {what}"),
            || {
                let proxy = &rig.stack.kafka[service];
                let active = proxy.active_clients(disconnected.elapsed());
                active.iter().any(is_successor).then_some(())
            },
        );
        println!("{what}: replaced after {:.1?} more", began.elapsed());
        self.record_recovery(rig, "client lost", &what, |_| ());
    }
}
