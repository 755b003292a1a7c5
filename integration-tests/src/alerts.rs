//! The project's alerts at work: a real Prometheus with its rules, a real Alertmanager with its routes, and somebody
//! who is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::extract::{Json, Path as Receiver, State};
use axum::routing::post;
use regex::{Captures, Regex};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::eventually;
use crate::parts::{PROJECT, Part};
use crate::prometheus::{Programs, Prometheus};
use crate::system::{System, free_port};

/// Fires always: it is no news.
const WATCHDOG: &str = "Watchdog";
/// Tell of this machine's disks, whatever else is at work on it.
const DISKS: [&str; 2] = ["DiskFilling", "DiskFull"];

/// An alert is this name and whatever labels matter to who asks.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Prometheus, Alertmanager and a receiver. All end when this is dropped.
pub struct Alerts {
    prometheus: Prometheus,
    _alertmanager: Part,
    address: SocketAddr,
    told: Arc<Mutex<Told>>,
    _runtime: Runtime,
}

/// The last that was told of each alert.
type Told = BTreeMap<BTreeMap<String, String>, Notice>;

/// What a receiver was told of an alert.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Who was told: the receiver's name in Alertmanager's file.
    pub receiver: String,
    /// Whether the alert fires; otherwise it has cleared.
    pub fires: bool,
    /// Summary, description and runbook.
    pub annotations: BTreeMap<String, String>,
}

/// The body of a webhook, as far as it matters here.
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

/// An alert as Alertmanager's API shows it.
#[derive(Deserialize)]
struct Shown {
    labels: BTreeMap<String, String>,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    inhibited_by: Vec<String>,
}

impl Alerts {
    /// Watches over `system` with the project's own rules and routes, whose times are all divided by `factor`.
    ///
    /// # Panics
    ///
    /// When something cannot be started.
    pub fn start(programs: &Programs, system: &System, factor: u32) -> Self {
        let folder = PathBuf::from(system.path("alerts"));
        let (address, told) = (free_port(), Arc::<Mutex<Told>>::default());
        let runtime = Runtime::new().expect("threads");
        let receiver = receive(&runtime, &told);
        fs::create_dir_all(folder.join("rules")).expect("a folder");
        for file in fs::read_dir(Path::new(PROJECT).join("observability/prometheus/rules"))
            .expect("the project's rules")
        {
            let path = file.expect("a file").path();
            let rules = fs::read_to_string(&path).expect("text");
            let name = path.file_name().expect("a name");
            fs::write(folder.join("rules").join(name), shortened(&rules, factor)).expect("a file");
        }
        let routes = Path::new(PROJECT).join("observability/alertmanager/alertmanager.yml");
        let routes = fs::read_to_string(routes).expect("the project's routes");
        let routes = to_webhooks(&shortened(&routes, factor), receiver);
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
        let alertmanager = Part::start("alertmanager", alertmanager, &folder);
        let prometheus = Prometheus::start(programs, &[], &[], folder.clone());
        prometheus.scrape("alertmanager", &[("alertmanager:9093".into(), address)]);
        let alerts = Self {
            prometheus,
            _alertmanager: alertmanager,
            address,
            told,
            _runtime: runtime,
        };
        alerts.follow(system);
        alerts.arrives(WATCHDOG, &[]);
        alerts
    }

    /// Takes note of where the processes of a system are now, and of which there are. As in containers, a process is
    /// known by its name.
    pub fn follow(&self, system: &System) {
        self.follow_all_but(system, "");
    }

    /// The same without one, as when somebody has scaled it to nothing.
    pub fn follow_all_but(&self, system: &System, without: &str) {
        let processes = system.processes();
        let targets: Vec<_> = processes
            .filter(|(name, _)| *name != without)
            .map(|(name, address)| (format!("{name}:9464"), address))
            .collect();
        self.prometheus.scrape("ordermesh", &targets);
    }

    /// The Prometheus.
    pub const fn prometheus(&self) -> &Prometheus {
        &self.prometheus
    }

    /// Waits until somebody is told that an alert with these labels fires.
    pub fn arrives(&self, name: &str, labels: Labels<'_>) -> Notice {
        eventually(&format!("{name} {labels:?} arrives"), || {
            let told = self.told(name, labels);
            told.into_iter().find(|notice| notice.fires)
        })
    }

    /// Whether somebody was told that it fires, and not yet that it is over.
    pub fn fires(&self, name: &str, labels: Labels<'_>) -> bool {
        let told = self.told(name, labels);
        told.iter().any(|notice| notice.fires)
    }

    /// Waits until somebody is told that it is over.
    pub fn clears(&self, name: &str, labels: Labels<'_>) {
        eventually(&format!("{name} {labels:?} clears"), || {
            let told = self.told(name, labels);
            assert!(!told.is_empty(), "{name} has never arrived");
            told.iter().all(|notice| !notice.fires).then_some(())
        });
    }

    /// Waits until an alert fires of which nobody is told, because of another one.
    pub fn is_silent(&self, name: &str, labels: Labels<'_>) {
        eventually(&format!("{name} {labels:?} fires silently"), || {
            self.fires_silently(name, labels).then_some(())
        });
    }

    /// Whether an alert fires of which nobody is told, because of another one.
    pub fn fires_silently(&self, name: &str, labels: Labels<'_>) -> bool {
        let mut shown = self.shown().into_iter();
        shown.any(|alert| is(&alert.labels, name, labels) && !alert.status.inhibited_by.is_empty())
    }

    /// The names of all alerts about the system that somebody was ever told of.
    pub fn heard(&self) -> BTreeSet<String> {
        let told = self.told.lock().expect("no holder panics");
        let names = told.keys().map(|labels| labels["alertname"].clone());
        names
            .filter(|name| name != WATCHDOG && !DISKS.contains(&name.as_str()))
            .collect()
    }

    fn told(&self, name: &str, labels: Labels<'_>) -> Vec<Notice> {
        let told = self.told.lock().expect("no holder panics");
        let told = told.iter().filter(|(found, _)| is(found, name, labels));
        told.map(|(_, notice)| notice.clone()).collect()
    }

    fn shown(&self) -> Vec<Shown> {
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
            println!("--- told\n{:#?}", self.told.lock());
        }
    }
}

/// Divides every time of rules or routes: durations after the words that take one, and thresholds that say `# seconds`.
/// A window keeps some samples, and nothing else gets shorter than a round of Prometheus.
fn shortened(text: &str, factor: u32) -> String {
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

/// Every receiver is told at its own path instead of by mail.
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
        "a receiver is not told:\n{routes}"
    );
    routes.into_owned()
}

/// Takes what Alertmanager tells.
fn receive(runtime: &Runtime, told: &Arc<Mutex<Told>>) -> SocketAddr {
    let router = axum::Router::new()
        .route("/{receiver}", post(note))
        .with_state(Arc::clone(told));
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("some port is free");
    let address = listener.local_addr().expect("it is bound");
    runtime.spawn(async move { axum::serve(listener, router).await });
    address
}

async fn note(
    State(told): State<Arc<Mutex<Told>>>,
    Receiver(receiver): Receiver<String>,
    Json(message): Json<Message>,
) {
    let mut told = told.lock().expect("no holder panics");
    for alert in message.alerts {
        let notice = Notice {
            receiver: receiver.clone(),
            fires: alert.status == "firing",
            annotations: alert.annotations,
        };
        told.insert(alert.labels, notice);
    }
}

fn is(found: &BTreeMap<String, String>, name: &str, labels: Labels<'_>) -> bool {
    let has = |(label, value): &(&str, &str)| found.get(*label).is_some_and(|found| found == value);
    has(&("alertname", name)) && labels.iter().all(has)
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}
