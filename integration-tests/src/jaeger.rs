//! A real Jaeger behind a real collector, with the project's configuration.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::child_process::{ChildProcess, PROJECT, installed};
use crate::eventually;
use crate::system::free_port;

/// Paths of the tracing programs.
#[derive(Clone, Debug)]
pub struct Programs {
    jaeger: PathBuf,
    collector: PathBuf,
}

impl Programs {
    /// Finds the programs that `stack install --telemetry` has built.
    ///
    /// # Errors
    ///
    /// A message with the path of the missing program.
    pub fn find() -> Result<Self, String> {
        Ok(Self {
            jaeger: installed("jaeger/jaeger")?,
            collector: installed("collector/collector")?,
        })
    }
}

/// A running Jaeger and collector. Both are killed when the value is dropped.
pub struct Jaeger {
    query: SocketAddr,
    otlp: SocketAddr,
    _processes: [ChildProcess; 2],
}

/// A trace as returned by Jaeger's API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// In no particular order.
    pub spans: Vec<Span>,
    processes: BTreeMap<String, Process>,
}

/// A span as returned by Jaeger's API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// 16 hexadecimal digits.
    #[serde(rename = "spanID")]
    pub id: String,
    /// Name of the operation.
    pub operation_name: String,
    references: Vec<Reference>,
    tags: Vec<Tag>,
    #[serde(rename = "processID")]
    process: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: String,
    #[serde(rename = "traceID")]
    trace: String,
    #[serde(rename = "spanID")]
    span: String,
}

#[derive(Debug, Deserialize)]
struct Tag {
    key: String,
    value: serde_json::Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Vec<Trace>>,
}

impl Jaeger {
    /// Starts both and waits until they accept spans. `variables` configure the collector's sampling.
    ///
    /// # Panics
    ///
    /// When one of them cannot be started.
    pub fn start(
        programs: &Programs,
        folder: impl Into<PathBuf>,
        variables: &[(&str, &str)],
    ) -> Self {
        let folder = folder.into();
        fs::create_dir_all(&folder).expect("a folder");
        let [query, jaeger_otlp, otlp, figures] = std::array::from_fn(|_| free_port());
        let settings = Path::new(PROJECT).join("compose/native/jaeger/jaeger.properties");
        let settings = fs::read_to_string(settings)
            .expect("the project's configuration")
            .replace("@PORT@", &query.port().to_string())
            .replace("@OTLP_PORT@", &jaeger_otlp.port().to_string());
        let properties = folder.join("jaeger.properties");
        fs::write(&properties, settings).expect("a file");
        let mut jaeger = Command::new(&programs.jaeger);
        jaeger
            .arg(format!("--config-file={}", properties.display()))
            .env("SPAN_STORAGE_TYPE", "memory");
        let config = Path::new(PROJECT).join("observability/collector/config.yaml");
        let mut collector = Command::new(&programs.collector);
        collector
            .arg(format!("--config={}", config.display()))
            .env("COLLECTOR_LISTEN", otlp.to_string())
            .env("COLLECTOR_METRICS_HOST", "127.0.0.1")
            .env("COLLECTOR_METRICS_PORT", figures.port().to_string())
            .env("JAEGER_OTLP", jaeger_otlp.to_string())
            .envs(variables.iter().copied());
        let parts = [("jaeger", jaeger), ("collector", collector)]
            .map(|(name, command)| ChildProcess::start(name, command, &folder));
        let started = Self {
            query,
            otlp,
            _processes: parts,
        };
        eventually("jaeger answers", || started.get("/api/services"));
        for address in [jaeger_otlp, otlp] {
            eventually("spans are accepted", || {
                std::net::TcpStream::connect(address).ok()
            });
        }
        started
    }

    /// Address that accepts spans (OTLP over gRPC).
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.otlp)
    }

    /// The spans of a trace that have arrived so far.
    ///
    /// # Panics
    ///
    /// When Jaeger's answer is malformed.
    pub fn trace(&self, id: &str) -> Option<Trace> {
        let text = self.get(&format!("/api/traces/{id}"))?;
        let answer: Answer = serde_json::from_str(&text).expect("Jaeger's format");
        answer.data?.into_iter().next()
    }

    /// The traces of a service that contain a span with this name; newest first, at most 20.
    ///
    /// # Panics
    ///
    /// When Jaeger's answer is malformed.
    pub fn traces(&self, service: &str, operation: &str) -> Vec<Trace> {
        let operation = operation.replace(' ', "%20");
        let path = format!("/api/traces?service={service}&operation={operation}");
        let text = self.get(&path).unwrap_or_default();
        let answer: Answer = serde_json::from_str(&text).expect("Jaeger's format");
        answer.data.unwrap_or_default()
    }

    fn get(&self, path: &str) -> Option<String> {
        let url = format!("http://{}{path}", self.query);
        let output = Command::new("curl")
            .args(["-sf", "-m", "10", &url])
            .output()
            .expect("curl can be run");
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Trace {
    /// The span with this id.
    pub fn span(&self, id: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.id == id)
    }

    /// The service that reported a span.
    pub fn service(&self, span: &Span) -> &str {
        &self.processes[&span.process].service_name
    }

    /// The direct children of a span.
    pub fn children(&self, id: &str) -> impl Iterator<Item = &Span> {
        self.spans
            .iter()
            .filter(move |span| span.parent() == Some(id))
    }
}

impl Span {
    /// The parent of a span.
    pub fn parent(&self) -> Option<&str> {
        self.references
            .iter()
            .find(|reference| reference.ref_type == "CHILD_OF")
            .map(|reference| reference.span.as_str())
    }

    /// Trace id and span id of each link.
    pub fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        self.references
            .iter()
            .filter(|reference| reference.ref_type == "FOLLOWS_FROM")
            .map(|reference| (reference.trace.as_str(), reference.span.as_str()))
    }

    /// An attribute as text.
    pub fn tag(&self, key: &str) -> Option<String> {
        let tag = self.tags.iter().find(|tag| tag.key == key)?;
        Some(match &tag.value {
            serde_json::Value::String(text) => text.clone(),
            value => value.to_string(),
        })
    }

    /// Whether the span has no error status.
    pub fn is_ok(&self) -> bool {
        self.tag("error").as_deref() != Some("true")
    }
}
