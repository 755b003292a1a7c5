//! The project's alerts on a running system: a real Prometheus with its rules, a real Alertmanager with its routes, and
//! a webhook receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::extract::{Json, Path as Receiver, State};
use axum::routing::post;
use parking_lot::Mutex;
use regex::{Captures, Regex};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::child_process::{ChildProcess, PROJECT};
use crate::eventually;
use crate::prometheus::{Programs, Prometheus};
use crate::system::{System, free_port};

/// Fires always, and is therefore ignored.
const WATCHDOG: &str = "Watchdog";
/// Alerts about this machine's disks, which depend on whatever else runs on it.
const DISKS: [&str; 2] = ["DiskFilling", "DiskFull"];

/// The labels that identify an alert, besides its name.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Prometheus, Alertmanager and a receiver. All end when the value is dropped.
pub struct Alerts {
    prometheus: Prometheus,
    _alertmanager: ChildProcess,
    address: SocketAddr,
    notifications: Arc<Mutex<Notifications>>,
    _runtime: Runtime,
}

/// The latest notification of each alert, by its labels.
type Notifications = BTreeMap<BTreeMap<String, String>, Notification>;

/// A notification as a receiver got it.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Name of the receiver in Alertmanager's configuration.
    pub receiver: String,
    /// Whether the alert fires; otherwise it is resolved.
    pub fires: bool,
    /// Summary, description and runbook.
    pub annotations: BTreeMap<String, String>,
}

/// Body of a webhook call, as far as it is used.
#[derive(Deserialize)]
struct Message {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    status: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// An alert as returned by Alertmanager's API.
#[derive(Deserialize)]
struct ActiveAlert {
    labels: BTreeMap<String, String>,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    inhibited_by: Vec<String>,
}

impl Alerts {
    /// Monitors `system` with the project's own rules and routes, all of whose times are divided by `factor`.
    ///
    /// # Panics
    ///
    /// When a program cannot be started.
    pub fn start(programs: &Programs, system: &System, factor: u32) -> Self {
        let folder = PathBuf::from(system.path("alerts"));
        let (address, notifications) = (free_port(), Arc::<Mutex<Notifications>>::default());
        let runtime = Runtime::new().expect("threads can be started");
        let receiver = start_receiver(&runtime, &notifications);
        fs::create_dir_all(folder.join("rules")).expect("a folder");
        for file in fs::read_dir(Path::new(PROJECT).join("observability/prometheus/rules"))
            .expect("the project's rules")
        {
            let path = file.expect("a file").path();
            let rules = fs::read_to_string(&path).expect("text");
            let name = path.file_name().expect("a name");
            fs::write(
                folder.join("rules").join(name),
                shorten_times(&rules, factor),
            )
            .expect("a file");
        }
        let routes = Path::new(PROJECT).join("observability/alertmanager/alertmanager.yml");
        let routes = fs::read_to_string(routes).expect("the project's routes");
        let routes = to_webhooks(&shorten_times(&routes, factor), receiver);
        fs::write(folder.join("alertmanager.yml"), routes).expect("a file");

        let mut alertmanager = programs.alertmanager();
        alertmanager
            .arg(format!(
                "--config.file={}",
                path(&folder, "alertmanager.yml")
            ))
            .arg(format!("--storage.path={}", path(&folder, "silences")))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=");
        let alertmanager = ChildProcess::start("alertmanager", alertmanager, &folder);
        let prometheus = Prometheus::start(programs, &[], &[], folder.clone());
        prometheus.scrape("alertmanager", &[("alertmanager:9093".into(), address)]);
        let alerts = Self {
            prometheus,
            _alertmanager: alertmanager,
            address,
            notifications,
            _runtime: runtime,
        };
        alerts.scrape_processes(system);
        alerts.wait_until_firing(WATCHDOG, &[]);
        alerts
    }

    /// Sets the scrape targets to the current processes of a system. As in containers, a process is known by its name.
    pub fn scrape_processes(&self, system: &System) {
        self.scrape_processes_except(system, "");
    }

    /// Like [`Alerts::scrape_processes`], without one process, as if it had been scaled to zero.
    pub fn scrape_processes_except(&self, system: &System, without: &str) {
        let processes = system.processes();
        let targets: Vec<_> = processes
            .filter(|(name, _)| *name != without)
            .map(|(name, address)| (format!("{name}:9464"), address))
            .collect();
        self.prometheus.scrape("ordermesh", &targets);
    }

    /// The Prometheus server.
    pub const fn prometheus(&self) -> &Prometheus {
        &self.prometheus
    }

    /// Waits until a receiver is notified that an alert with these labels fires.
    pub fn wait_until_firing(&self, name: &str, labels: Labels<'_>) -> Notification {
        eventually(&format!("{name} {labels:?} is firing"), || {
            let notifications = self.notifications_of(name, labels);
            notifications
                .into_iter()
                .find(|notification| notification.fires)
        })
    }

    /// Whether the latest notification of the alert says that it fires.
    pub fn is_firing(&self, name: &str, labels: Labels<'_>) -> bool {
        let notifications = self.notifications_of(name, labels);
        notifications.iter().any(|notification| notification.fires)
    }

    /// Waits until a receiver is notified that the alert is resolved.
    pub fn wait_until_resolved(&self, name: &str, labels: Labels<'_>) {
        eventually(&format!("{name} {labels:?} is resolved"), || {
            let notifications = self.notifications_of(name, labels);
            assert!(!notifications.is_empty(), "{name} has never fired");
            notifications
                .iter()
                .all(|notification| !notification.fires)
                .then_some(())
        });
    }

    /// Waits until the alert fires and is inhibited by another one.
    pub fn wait_until_inhibited(&self, name: &str, labels: Labels<'_>) {
        eventually(&format!("{name} {labels:?} is inhibited"), || {
            self.is_inhibited(name, labels).then_some(())
        });
    }

    /// Whether the alert fires and is inhibited by another one.
    pub fn is_inhibited(&self, name: &str, labels: Labels<'_>) -> bool {
        let mut active = self.active_alerts().into_iter();
        active.any(|alert| {
            matches(&alert.labels, name, labels) && !alert.status.inhibited_by.is_empty()
        })
    }

    /// Names of all alerts about the system that any receiver was notified of.
    pub fn notified_alerts(&self) -> BTreeSet<String> {
        let notifications = self.notifications.lock();
        let names = notifications
            .keys()
            .map(|labels| labels["alertname"].clone());
        names
            .filter(|name| name != WATCHDOG && !DISKS.contains(&name.as_str()))
            .collect()
    }

    fn notifications_of(&self, name: &str, labels: Labels<'_>) -> Vec<Notification> {
        let notifications = self.notifications.lock();
        let notifications = notifications
            .iter()
            .filter(|(found, _)| matches(found, name, labels));
        notifications
            .map(|(_, notification)| notification.clone())
            .collect()
    }

    fn active_alerts(&self) -> Vec<ActiveAlert> {
        let url = format!("http://{}/api/v2/alerts", self.address);
        let output = Command::new("curl")
            .args(["-s", "-m", "5", &url])
            .output()
            .expect("curl can be run");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

impl Drop for Alerts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- notifications\n{:#?}", self.notifications.lock());
        }
    }
}

/// Divides all times of rules or routes: durations after the keywords that take one, and thresholds marked `# seconds`.
/// A window keeps several samples, and no other time becomes shorter than an evaluation interval.
fn shorten_times(text: &str, factor: u32) -> String {
    let durations = Regex::new(
        r"(for: |keep_firing_for: |offset |\[|group_wait: |group_interval: |repeat_interval: )(\d+)([smhd])\b",
    )
    .expect("a valid pattern");
    let text = durations.replace_all(text, |found: &Captures<'_>| {
        let unit = match &found[3] {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => 86_400_000,
        };
        let number: u64 = found[2].parse().unwrap_or(u64::MAX);
        let shorter = number.saturating_mul(unit) / u64::from(factor);
        let least = match &found[1] {
            "[" | "offset " => 5_000,
            _ if number == 0 => 0,
            _ => 1_000,
        };
        format!("{}{}ms", &found[1], shorter.max(least))
    });
    let thresholds = Regex::new(r"(\d+) # seconds").expect("a valid pattern");
    let text = thresholds.replace_all(&text, |found: &Captures<'_>| {
        let number: f64 = found[1].parse().unwrap_or(f64::INFINITY);
        format!("{} # seconds", number / f64::from(factor))
    });
    text.into_owned()
}

/// Replaces the e-mail of each receiver by a webhook at its own path.
fn to_webhooks(routes: &str, address: SocketAddr) -> String {
    let mail = Regex::new(r"- name: (\S+)\n    email_configs: .*").expect("a valid pattern");
    let routes = mail.replace_all(routes, |found: &Captures<'_>| {
        let name = &found[1];
        format!(
            "- name: {name}\n    webhook_configs: [{{ url: 'http://{address}/{name}', send_resolved: true }}]"
        )
    });
    assert!(
        !routes.contains("email_configs"),
        "a receiver has no webhook:\n{routes}"
    );
    routes.into_owned()
}

/// Starts the server that receives Alertmanager's webhook calls.
fn start_receiver(runtime: &Runtime, notifications: &Arc<Mutex<Notifications>>) -> SocketAddr {
    let router = axum::Router::new()
        .route("/{receiver}", post(receive_webhook))
        .with_state(Arc::clone(notifications));
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("some port is free");
    let address = listener.local_addr().expect("it is bound");
    runtime.spawn(async move { axum::serve(listener, router).await });
    address
}

async fn receive_webhook(
    State(notifications): State<Arc<Mutex<Notifications>>>,
    Receiver(receiver): Receiver<String>,
    Json(message): Json<Message>,
) {
    let mut notifications = notifications.lock();
    for alert in message.alerts {
        let notification = Notification {
            receiver: receiver.clone(),
            fires: alert.status == "firing",
            annotations: alert.annotations,
        };
        notifications.insert(alert.labels, notification);
    }
}

fn matches(found: &BTreeMap<String, String>, name: &str, labels: Labels<'_>) -> bool {
    let has = |(label, value): &(&str, &str)| found.get(*label).is_some_and(|found| found == value);
    has(&("alertname", name)) && labels.iter().all(has)
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}
