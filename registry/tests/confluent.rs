//! The client against a real schema registry (Confluent API), at the address in `ORDERMESH_REGISTRY`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use contracts::{Service, Topic};
use registry::compatibility::Violation;
use registry::schema::{record, render};
use registry::{Error, Metrics, Registration, Resolution, Schemas, Settings};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

const EVENTS: (Service, Topic) = (Service::Orders, Topic::Events);
const COMMANDS: (Service, Topic) = (Service::Orders, Topic::Commands);
const DEADLINE: Duration = Duration::from_secs(20);

fn address() -> String {
    std::env::var("ORDERMESH_REGISTRY").expect(
        "ORDERMESH_REGISTRY must be the address of a running schema registry (Confluent API)",
    )
}

/// Settings with a unique prefix.
fn settings() -> Settings {
    Settings::new(
        address(),
        format!("registry-test-{:016x}.", fastrand::u64(..)),
    )
}

async fn register(settings: &Settings, writes: &[(Service, Topic)]) -> Result<Schemas, Error> {
    Schemas::register(settings, metrics(), writes, &[]).await
}

fn metrics() -> Metrics {
    Metrics::new(&prometheus::Registry::new()).unwrap()
}

fn all_topics() -> Vec<(Service, Topic)> {
    Service::ALL
        .into_iter()
        .flat_map(|service| Topic::ALL.map(|topic| (service, topic)))
        .collect()
}

/// Direct access to the registry, as another program has it.
struct RawClient {
    url: String,
    prefix: String,
}

impl RawClient {
    fn with(settings: &Settings) -> Self {
        Self {
            url: address(),
            prefix: settings.prefix.clone(),
        }
    }

    async fn get(&self, path: &str) -> Value {
        let response = reqwest::get(format!("{}/{path}", self.url)).await.unwrap();
        response.error_for_status().unwrap().json().await.unwrap()
    }

    fn subject(&self, (service, topic): (Service, Topic)) -> String {
        format!("{}-value", topic.of(service, &self.prefix))
    }

    /// Registers a text for orders.events with the references of orders.commands, and returns its id.
    async fn register_events(&self, text: &str) -> u32 {
        let commands = self
            .get(&format!(
                "subjects/{}/versions/latest",
                self.subject(COMMANDS)
            ))
            .await;
        let body = json!({ "schemaType": "PROTOBUF", "schema": text, "references": commands["references"] });
        let url = format!("{}/subjects/{}/versions", self.url, self.subject(EVENTS));
        let response = reqwest::Client::new()
            .post(url)
            .json(&body)
            .send()
            .await
            .unwrap();
        let answer: Value = response.error_for_status().unwrap().json().await.unwrap();
        u32::try_from(answer["id"].as_u64().unwrap()).unwrap()
    }
}

/// The text of orders.events with one line changed.
fn events_text(line: &str, replacement: &str) -> String {
    let text = render(&record(EVENTS.0, EVENTS.1).unwrap().parent_file());
    assert_eq!(text.matches(line).count(), 1, "{line}");
    text.replace(line, replacement)
}

fn newer_events_text() -> String {
    events_text(
        "message OrderDelivered {",
        "message OrderDelivered {\n  string signed_by = 1;",
    )
}

/// Resolves an id until the answer is definite.
async fn resolved(schemas: &Schemas, (service, topic): (Service, Topic), id: u32) -> Resolution {
    eventually(|| {
        Some(schemas.resolve(service, topic, id)).filter(|answer| *answer != Resolution::Pending)
    })
    .await
}

async fn eventually<T>(mut reached: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(state) = reached() {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .expect("the state is reached in time")
}

/// A TCP proxy in front of the registry that can refuse connections.
struct RegistryProxy {
    url: String,
    open: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl RegistryProxy {
    async fn new(open: bool) -> Self {
        let registry = reqwest::Url::parse(&address()).unwrap();
        let target = format!(
            "{}:{}",
            registry.host_str().unwrap(),
            registry.port_or_known_default().unwrap()
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}{}",
            listener.local_addr().unwrap(),
            registry.path()
        );
        let open = Arc::new(AtomicBool::new(open));
        let refused = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(Self::serve(listener, target, open.clone(), refused.clone()));
        Self {
            url,
            open,
            refused,
            task,
        }
    }

    async fn serve(
        listener: TcpListener,
        target: String,
        open: Arc<AtomicBool>,
        refused: Arc<AtomicUsize>,
    ) {
        let mut connections = JoinSet::new();
        loop {
            let (mut inside, _) = listener.accept().await.unwrap();
            if !open.load(Ordering::SeqCst) {
                connections.shutdown().await;
                refused.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let target = target.clone();
            connections.spawn(async move {
                let mut outside = TcpStream::connect(target).await.unwrap();
                // Ends when either side ends.
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    }

    /// Refuses new connections and cuts existing ones.
    async fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        let host = reqwest::Url::parse(&self.url).unwrap();
        let before = self.refused.load(Ordering::SeqCst);
        // A connection that makes the loop notice it.
        let proxy = (host.host_str().unwrap().to_owned(), host.port().unwrap());
        drop(TcpStream::connect(proxy).await.unwrap());
        eventually(|| (self.refused.load(Ordering::SeqCst) > before).then_some(())).await;
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for RegistryProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn registration_is_idempotent_and_safe_to_run_concurrently() {
    let settings = settings();
    let topics = all_topics();
    let mut starts = JoinSet::new();
    for _ in 0..4 {
        let (settings, topics) = (settings.clone(), topics.clone());
        starts.spawn(async move { register(&settings, &topics).await.unwrap() });
    }
    let mut handles = starts.join_all().await;
    handles.push(register(&settings, &topics).await.unwrap());

    let mut ids = Vec::new();
    for &(service, topic) in topics.iter().filter(|(_, topic)| *topic != Topic::Dlq) {
        let id = handles[0].writer_id(service, topic);
        ids.push(id);
        for handle in &handles {
            assert_eq!(handle.writer_id(service, topic), id);
            assert_eq!(handle.resolve(service, topic, id), Resolution::Known);
            assert!(handle.knows(id).await.unwrap());
        }
        let client = RawClient::with(&settings);
        let subject = client.subject((service, topic));
        assert_eq!(
            client.get(&format!("subjects/{subject}/versions")).await,
            json!([1])
        );
        let config = client.get(&format!("config/{subject}")).await;
        assert_eq!(config["compatibilityLevel"], "BACKWARD_TRANSITIVE");
        let version = client.get(&format!("subjects/{subject}/versions/1")).await;
        let references = version["references"].as_array().unwrap();
        let imports = version["schema"]
            .as_str()
            .unwrap()
            .matches("\nimport ")
            .count();
        assert!(imports > 0);
        assert_eq!(references.len(), imports);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 16);
}

#[tokio::test]
async fn an_incompatible_contract_is_refused_and_leaves_nothing_behind() {
    let settings = settings();
    register(&settings, &[COMMANDS]).await.unwrap();
    let client = RawClient::with(&settings);
    client
        .register_events(&events_text(
            "string tracking_number = 1;",
            "string parcel_number = 1;",
        ))
        .await;

    for (writes, reads) in [(&[EVENTS][..], &[][..]), (&[][..], &[EVENTS][..])] {
        let error = Schemas::register(&settings, metrics(), writes, reads)
            .await
            .unwrap_err();
        let Error::Incompatible {
            version: 1,
            violations,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        let renamed = Violation::Renamed {
            parent: "ordermesh.orders.v1.OrderShipped".to_owned(),
            number: 1,
            from: "parcel_number".to_owned(),
            to: "tracking_number".to_owned(),
        };
        assert_eq!(violations, &[renamed]);
        assert!(
            error
                .to_string()
                .contains("parcel_number = 1 was renamed to tracking_number")
        );
    }
    let versions = client
        .get(&format!("subjects/{}/versions", client.subject(EVENTS)))
        .await;
    assert_eq!(versions, json!([1]));
}

#[tokio::test]
async fn an_older_version_stays_known() {
    let settings = settings();
    register(&settings, &[COMMANDS]).await.unwrap();
    let older = events_text(
        "    ordermesh.orders.v1.OrderFlaggedLate order_flagged_late = 29;\n",
        "",
    );
    let older = RawClient::with(&settings).register_events(&older).await;

    let schemas = register(&settings, &[EVENTS]).await.unwrap();
    assert_ne!(schemas.writer_id(EVENTS.0, EVENTS.1), older);
    assert_eq!(
        schemas.resolve(EVENTS.0, EVENTS.1, older),
        Resolution::Known
    );
}

#[tokio::test]
async fn the_status_of_a_contract_is_read_without_registering_it() {
    let settings = settings();
    let status = async || {
        let statuses = Schemas::subject_statuses(&settings, metrics(), &[EVENTS]).await;
        let subject = RawClient::with(&settings).subject(EVENTS);
        let statuses = statuses.unwrap().into_iter();
        let mut found = statuses.filter(|status| status.subject == subject);
        found.next().unwrap().registration
    };
    assert_eq!(status().await, Registration::Missing);
    register(&settings, &[COMMANDS]).await.unwrap();
    assert_eq!(
        status().await,
        Registration::Missing,
        "only the imports are registered"
    );

    let client = RawClient::with(&settings);
    let added = "    ordermesh.orders.v1.OrderFlaggedLate order_flagged_late = 29;\n";
    client.register_events(&events_text(added, "")).await;
    assert_eq!(status().await, Registration::Older);
    register(&settings, &[EVENTS]).await.unwrap();
    assert_eq!(status().await, Registration::Exact);
}

#[tokio::test]
async fn newer_and_incompatible_registrations_are_reported() {
    let renamed = events_text("string tracking_number = 1;", "string parcel_number = 1;");
    for (text, newer) in [(renamed, false), (newer_events_text(), true)] {
        let settings = settings();
        register(&settings, &[COMMANDS]).await.unwrap();
        RawClient::with(&settings).register_events(&text).await;
        let statuses = Schemas::subject_statuses(&settings, metrics(), &[EVENTS]).await;
        let statuses = statuses.unwrap();
        let matched = statuses.iter().any(|status| match &status.registration {
            Registration::Newer { version: 1 } => newer,
            Registration::Incompatible { version: 1, .. } => !newer,
            _ => false,
        });
        assert!(matched, "{statuses:?}");
    }
}

#[tokio::test]
async fn foreign_and_unknown_ids_are_distinguished() {
    let settings = settings();
    let schemas = register(&settings, &[EVENTS, COMMANDS]).await.unwrap();
    let commands = schemas.writer_id(COMMANDS.0, COMMANDS.1);
    assert_eq!(
        schemas.resolve(EVENTS.0, EVENTS.1, commands),
        Resolution::Pending
    );
    assert_eq!(
        resolved(&schemas, EVENTS, commands).await,
        Resolution::Foreign
    );
    assert_eq!(
        resolved(&schemas, EVENTS, u32::MAX).await,
        Resolution::Unknown
    );
    assert!(!schemas.knows(u32::MAX).await.unwrap());

    // Another message under the subject of this topic.
    let text = events_text(
        "message OrderEvent {",
        "message Other {}\n\nmessage OrderEvent {",
    );
    let other = RawClient::with(&settings).register_events(&text).await;
    assert_eq!(resolved(&schemas, EVENTS, other).await, Resolution::Foreign);

    // An id that exists only for topics of another prefix was not in use here.
    let other_platform = register(&self::settings(), &[EVENTS]).await.unwrap();
    assert!(
        !schemas
            .knows(other_platform.writer_id(EVENTS.0, EVENTS.1))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_later_version_of_another_program_is_newer() {
    let settings = settings();
    let schemas = register(&settings, &[EVENTS, COMMANDS]).await.unwrap();
    let own = schemas.writer_id(EVENTS.0, EVENTS.1);
    let later = RawClient::with(&settings)
        .register_events(&newer_events_text())
        .await;
    assert_eq!(resolved(&schemas, EVENTS, later).await, Resolution::Newer);

    // After a restart the old program still writes its own version, and resolves the newer one at once.
    let schemas = register(&settings, &[EVENTS]).await.unwrap();
    assert_eq!(schemas.writer_id(EVENTS.0, EVENTS.1), own);
    assert_eq!(schemas.resolve(EVENTS.0, EVENTS.1, own), Resolution::Known);
    assert_eq!(
        schemas.resolve(EVENTS.0, EVENTS.1, later),
        Resolution::Newer
    );
}

#[tokio::test]
async fn an_outdated_writer_is_refused_but_an_outdated_reader_is_not() {
    let settings = settings();
    register(&settings, &[COMMANDS]).await.unwrap();
    let later = RawClient::with(&settings)
        .register_events(&newer_events_text())
        .await;
    let error = register(&settings, &[EVENTS]).await.unwrap_err();
    assert!(
        matches!(error, Error::Outdated { version: 1, .. }),
        "{error}"
    );
    let reader = Schemas::register(&settings, metrics(), &[], &[EVENTS])
        .await
        .unwrap();
    assert_eq!(reader.resolve(EVENTS.0, EVENTS.1, later), Resolution::Newer);
}

#[tokio::test]
async fn known_ids_keep_working_while_the_registry_is_down() {
    let proxy = RegistryProxy::new(true).await;
    let settings = Settings {
        url: proxy.url.clone(),
        ..settings()
    };
    let prometheus = prometheus::Registry::new();
    let metrics = Metrics::new(&prometheus).unwrap();
    let schemas = Schemas::register(&settings, metrics, &[EVENTS, COMMANDS], &[])
        .await
        .unwrap();
    let own = schemas.writer_id(EVENTS.0, EVENTS.1);
    let later = RawClient::with(&settings)
        .register_events(&newer_events_text())
        .await;

    proxy.close().await;
    let closed_at = proxy.refused.load(Ordering::SeqCst);
    assert_eq!(schemas.resolve(EVENTS.0, EVENTS.1, own), Resolution::Known);
    assert!(matches!(
        schemas.knows(own).await,
        Err(Error::Unreachable { .. })
    ));
    assert_eq!(
        schemas.resolve(EVENTS.0, EVENTS.1, later),
        Resolution::Pending
    );
    assert_eq!(
        schemas.resolve(EVENTS.0, EVENTS.1, u32::MAX),
        Resolution::Pending
    );
    // After several attempts the new ids are still pending.
    eventually(|| (proxy.refused.load(Ordering::SeqCst) > closed_at + 5).then_some(())).await;
    assert_eq!(schemas.resolve(EVENTS.0, EVENTS.1, own), Resolution::Known);
    assert_eq!(
        schemas.resolve(EVENTS.0, EVENTS.1, later),
        Resolution::Pending
    );
    assert_eq!(
        schemas.resolve(EVENTS.0, EVENTS.1, u32::MAX),
        Resolution::Pending
    );
    assert_eq!(pending(&prometheus), 2.0);

    proxy.open();
    assert_eq!(resolved(&schemas, EVENTS, later).await, Resolution::Newer);
    assert_eq!(
        resolved(&schemas, EVENTS, u32::MAX).await,
        Resolution::Unknown
    );
    eventually(|| (pending(&prometheus) == 0.0).then_some(())).await;
    assert!(schemas.knows(own).await.unwrap());
}

fn pending(prometheus: &prometheus::Registry) -> f64 {
    let families = prometheus.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "ordermesh_registry_pending_schema_ids");
    family.unwrap().get_metric()[0].get_gauge().get_value()
}

#[tokio::test]
async fn start_up_waits_for_the_registry_until_its_deadline() {
    let proxy = RegistryProxy::new(false).await;
    let settings = Settings {
        url: proxy.url.clone(),
        ..settings()
    };
    let short_deadline = Settings {
        deadline: Duration::from_millis(300),
        ..settings.clone()
    };
    let error = register(&short_deadline, &[EVENTS]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("the schema registry did not answer within 0."),
        "{error}"
    );

    let attempts = proxy.refused.load(Ordering::SeqCst);
    let start = tokio::spawn(async move { register(&settings, &[EVENTS]).await });
    eventually(|| (proxy.refused.load(Ordering::SeqCst) > attempts + 2).then_some(())).await;
    proxy.open();
    start.await.unwrap().unwrap();
}
