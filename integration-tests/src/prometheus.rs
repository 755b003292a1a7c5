//! A real Prometheus that scrapes the processes of a test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::child_process::{ChildProcess, PROJECT, installed};
use crate::eventually;
use crate::system::free_port;

/// Settings of the project's configuration that are too long for a test.
const INTERVALS: [&str; 2] = ["scrape_interval: 5s", "evaluation_interval: 5s"];

/// Paths of Prometheus's programs.
#[derive(Clone, Debug)]
pub struct Programs {
    prometheus: PathBuf,
    node_exporter: PathBuf,
    alertmanager: PathBuf,
}

/// A Prometheus with the project's configuration, a folder of its own, and a scrape interval of one second. It is
/// killed when the value is dropped.
pub struct Prometheus {
    address: SocketAddr,
    folder: PathBuf,
    _processes: [ChildProcess; 2],
}

/// One element of a query result.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Labels, as a JSON object.
    pub labels: Value,
    /// Value; may be NaN or infinite.
    pub value: f64,
}

impl Programs {
    /// Finds the programs that `stack install --telemetry` has fetched.
    ///
    /// # Errors
    ///
    /// A message with the path of the missing program.
    pub fn find() -> Result<Self, String> {
        Ok(Self {
            prometheus: installed("prometheus/usr/bin/prometheus")?,
            node_exporter: installed("node-exporter/usr/bin/prometheus-node-exporter")?,
            alertmanager: installed("alertmanager/usr/bin/prometheus-alertmanager")?,
        })
    }

    /// `promtool`, which checks rules.
    pub fn promtool(&self) -> Command {
        Command::new(self.prometheus.with_file_name("promtool"))
    }

    /// `amtool`, which checks routes.
    pub fn amtool(&self) -> Command {
        Command::new(self.alertmanager.with_file_name("amtool"))
    }

    /// Alertmanager, run in the folder of its templates.
    pub(crate) fn alertmanager(&self) -> Command {
        let mut command = Command::new(&self.alertmanager);
        let usr = self.alertmanager.ancestors().nth(2);
        command.current_dir(usr.expect("usr/bin/prometheus-alertmanager"));
        command
    }
}

impl Prometheus {
    /// Starts Prometheus and a node exporter, and waits until it is ready. It scrapes `processes` as the job
    /// `ordermesh`; the other jobs are Prometheus itself, the node exporter, and `away`, whose target does not answer.
    ///
    /// # Panics
    ///
    /// When a program cannot be started.
    pub fn start(
        programs: &Programs,
        processes: &[SocketAddr],
        away: &[&'static str],
        folder: impl Into<PathBuf>,
    ) -> Self {
        let folder = folder.into();
        let (address, node) = (free_port(), free_port());
        fs::create_dir_all(folder.join("targets")).expect("a folder");
        let mut settings =
            fs::read_to_string(Path::new(PROJECT).join("observability/prometheus/prometheus.yml"))
                .expect("the project's configuration");
        for interval in INTERVALS {
            assert!(settings.contains(interval), "{settings}");
            settings = settings.replace(interval, &interval.replace("5s", "1s"));
        }
        fs::write(folder.join("prometheus.yml"), settings).expect("a file");
        targets(&folder, "ordermesh", processes);
        targets(&folder, "prometheus", &[address]);
        targets(&folder, "node", &[node]);
        for job in away {
            targets(&folder, job, &[free_port()]);
        }
        let mut prometheus = Command::new(&programs.prometheus);
        prometheus
            .arg(option(
                "config.file",
                folder.join("prometheus.yml").display(),
            ))
            .arg(option("storage.tsdb.path", folder.join("data").display()))
            .arg(option("web.listen-address", address))
            .arg("--enable-feature=exemplar-storage")
            .arg("--rules.alert.resend-delay=5s");
        let mut node_exporter = Command::new(&programs.node_exporter);
        node_exporter.arg(option("web.listen-address", node));
        let parts = [("prometheus", prometheus), ("node-exporter", node_exporter)]
            .map(|(name, command)| ChildProcess::start(name, command, &folder));
        let started = Self {
            address,
            folder,
            _processes: parts,
        };
        eventually("prometheus is ready", || {
            started.get("/-/ready", &[]).map(|_| ())
        });
        started
    }

    /// Replaces the targets of a job, given with their instance names.
    pub fn scrape(&self, job: &str, targets: &[(String, SocketAddr)]) {
        let targets = targets
            .iter()
            .map(|(name, address)| json!({ "targets": [address], "labels": { "instance": name } }));
        let list: Vec<_> = targets.collect();
        replace(&self.folder, job, &json!(list));
    }

    /// Result of an instant query.
    ///
    /// # Errors
    ///
    /// The error of Prometheus.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>, String> {
        let answer = self.data("/api/v1/query", &[("query", query)])?;
        let found = match answer["resultType"].as_str() {
            Some("vector") => answer["result"].as_array().cloned().unwrap_or_default(),
            _ => return Err(format!("{query} is no vector: {answer}")),
        };
        Ok(found
            .into_iter()
            .map(|sample| Sample {
                value: number(&sample["value"][1]),
                labels: sample["metric"].clone(),
            })
            .collect())
    }

    /// The values of a label of a metric.
    ///
    /// # Errors
    ///
    /// The error of Prometheus.
    pub fn values(&self, label: &str, metric: &str) -> Result<Vec<Value>, String> {
        let path = format!("/api/v1/label/{label}/values");
        let answer = self.data(&path, &[("match[]", metric)])?;
        Ok(answer.as_array().cloned().unwrap_or_default())
    }

    fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let text = self
            .get(path, parameters)
            .ok_or_else(|| format!("{path} does not answer"))?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if answer["status"] == "success" {
            Ok(answer["data"].clone())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// Body of an answer, also of an error with a description.
    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Option<String> {
        let mut command = Command::new("curl");
        command.args(["-sG", "-m", "10"]);
        for (name, value) in parameters {
            command.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        let output = command
            .arg(format!("http://{}{path}", self.address))
            .output()
            .expect("curl can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success() && !text.contains("Service Unavailable")).then_some(text)
    }
}

fn option(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn targets(folder: &Path, job: &str, addresses: &[SocketAddr]) {
    replace(folder, job, &json!([{ "targets": addresses }]));
}

/// Replaces a target list atomically: Prometheus may read it at any time.
fn replace(folder: &Path, job: &str, list: &Value) {
    let path = folder.join(format!("targets/{job}.json"));
    let new = path.with_extension("new");
    fs::write(&new, list.to_string()).expect("a file");
    fs::rename(new, path).expect("a file");
}

/// Values are text, because JSON has no NaN and no infinity.
fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("+Inf") => f64::INFINITY,
        Some("-Inf") => f64::NEG_INFINITY,
        Some(text) => text.parse().unwrap_or(f64::NAN),
        None => f64::NAN,
    }
}
