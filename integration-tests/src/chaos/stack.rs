//! A stack of the fault tests' own, whose parts can be killed, frozen and cut off.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::Scale;
use super::proxy::{Protocol, Proxy};
use crate::child_process::PROJECT;
use crate::servers::{Addresses, env};
use crate::signals;
use crate::system::free_port;

/// Services that reach Kafka through a proxy of their own.
pub const KAFKA_CLIENTS: [&str; 5] = ["orders", "inventory", "payments", "shipping", "query"];
/// Variable with the folder of the caller's stack.
const STACK_DIR: &str = "ORDERMESH_STACK_DIR";
/// Size of the small file system in megabytes: for the read models of all short loads, and of a long one.
const DISK_MB: [u32; 2] = [512, 1_024];

/// Kafka, schema registry and PostgreSQL, with proxies in front of Kafka and PostgreSQL.
pub struct Stack {
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
    /// Addresses that bypass the proxies.
    pub direct: Addresses,
    /// Proxies in front of Kafka, by the service that uses them.
    pub kafka: BTreeMap<&'static str, Proxy>,
    /// Proxy in front of PostgreSQL.
    pub postgres: Proxy,
    /// Mount point of a small file system for a database, if one can be mounted.
    pub disk: Option<PathBuf>,
    /// Runtime of proxies and loads.
    pub runtime: Runtime,
}

static CURRENT: Mutex<Weak<Stack>> = Mutex::new(Weak::new());

impl Stack {
    /// The stack of this process. The first caller starts it; it stops when the last reference is dropped.
    ///
    /// # Panics
    ///
    /// When the stack cannot be started.
    pub fn shared(seed: u64, scale: Scale) -> Arc<Self> {
        let mut current = CURRENT.lock();
        current.upgrade().unwrap_or_else(|| {
            let stack = Arc::new(Self::start(seed, scale));
            *current = Arc::downgrade(&stack);
            stack
        })
    }

    fn start(seed: u64, scale: Scale) -> Self {
        let base = std::env::var(STACK_DIR).unwrap_or_else(|_| format!("{PROJECT}/.stack/make"));
        let folder = PathBuf::from(format!("{base}-chaos"));
        fs::create_dir_all(&folder).expect("a folder for the stack");
        let links: Vec<_> = KAFKA_CLIENTS
            .into_iter()
            .map(|client| (client, free_port(), free_port()))
            .collect();
        let named: Vec<_> = links
            .iter()
            .map(|(_, listen, advertised)| format!("{}:{}", listen.port(), advertised.port()))
            .collect();
        let port = || free_port().port().to_string();
        let postgres = free_port();
        let settings = vec![
            (STACK_DIR, folder.display().to_string()),
            ("ORDERMESH_KAFKA_PORT", port()),
            ("ORDERMESH_KAFKA_CONTROLLER_PORT", port()),
            ("ORDERMESH_KAFKA_LINKS", named.join(" ")),
            ("ORDERMESH_REGISTRY_PORT", port()),
            ("ORDERMESH_POSTGRES_PORT", postgres.port().to_string()),
        ];
        // An interrupted run may have left a mount.
        let disk = folder.join("disk");
        unmount(&disk);
        script(&settings, &["reset"]);
        script(&settings, &["up"]);
        let runtime = Runtime::new().expect("threads can be started");
        let proxy = |(number, listen, upstream, protocol): (u64, _, _, _)| {
            Proxy::start(runtime.handle(), listen, upstream, protocol, seed ^ number)
        };
        let kafka = (0..)
            .zip(&links)
            .map(|(number, (client, listen, advertised))| {
                (
                    *client,
                    proxy((number, *advertised, *listen, Protocol::Kafka)),
                )
            })
            .collect();
        let before_postgres = proxy((u64::MAX, free_port(), postgres, Protocol::Postgres));
        Self {
            direct: addresses(&settings),
            kafka,
            postgres: before_postgres,
            disk: mount(&disk, scale.select(DISK_MB[0], DISK_MB[1])),
            folder,
            settings,
            runtime,
        }
    }

    /// Runs a command of the stack script, such as `["kill9", "kafka"]`.
    ///
    /// # Panics
    ///
    /// When the command fails.
    pub fn control(&self, arguments: [&str; 2]) -> String {
        script(&self.settings, &arguments)
    }

    /// Starts the broker. Its controller fences it when it sends no heartbeat for `session_timeout`.
    ///
    /// # Panics
    ///
    /// See [`Stack::control`].
    pub fn start_kafka(&self, session_timeout: Duration) {
        let mut settings = self.settings.clone();
        let session_ms = session_timeout.as_millis().to_string();
        settings.push(("ORDERMESH_KAFKA_SESSION_MS", session_ms));
        script(&settings, &["start", "kafka"]);
    }

    /// Number of lines of a part's log that contain `text`.
    ///
    /// # Panics
    ///
    /// When the part has no log.
    pub fn count_log_lines(&self, part: &str, text: &str) -> usize {
        let path = self.folder.join(format!("log/{part}.log"));
        let log = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// Suspends all processes of a part.
    pub fn freeze(&self, part: &str) {
        self.signal(part, signals::STOP);
    }

    /// Resumes a suspended part.
    pub fn thaw(&self, part: &str) {
        self.signal(part, signals::CONTINUE);
    }

    fn signal(&self, part: &str, signal: &str) {
        let parent = self.control(["pid", part]).trim().to_owned();
        // PostgreSQL has a process for each connection.
        let children = Command::new("pgrep")
            .args(["-P", &parent])
            .output()
            .expect("pgrep can be run");
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        let mut ids = vec![parent.as_str()];
        ids.extend(children.split_whitespace());
        // A child may have ended meanwhile.
        assert!(
            signals::send(signal, &ids) || ids.len() > 1,
            "{part} does not run"
        );
    }

    /// Removes all faults of all proxies.
    pub fn heal(&self) {
        for proxy in self.kafka.values().chain([&self.postgres]) {
            proxy.heal();
        }
    }

    /// A database URL with the proxy's port.
    pub fn proxied_database(&self, url: &str) -> String {
        let port = self.postgres.address.port().to_string();
        let setting = self
            .settings
            .iter()
            .find(|(name, _)| *name == "ORDERMESH_POSTGRES_PORT");
        url.replace(&setting.expect("it is set").1, &port)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        script(&self.settings, &["down"]);
        if let Some(disk) = &self.disk {
            unmount(disk);
        }
        if !std::thread::panicking() {
            script(&self.settings, &["reset"]);
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn script(settings: &[(&'static str, String)], arguments: &[&str]) -> String {
    let script = format!("{PROJECT}/compose/native/stack");
    let output = Command::new(&script)
        .args(arguments)
        // The addresses of a caller's own stack must not reach this one.
        .env_remove(env::KAFKA)
        .env_remove(env::REGISTRY)
        .env_remove(env::DATABASE)
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap_or_else(|error| panic!("{script} cannot be run: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "stack {} failed ({}):\n{text}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn addresses(settings: &[(&'static str, String)]) -> Addresses {
    let text = script(settings, &["env"]);
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.expect("the stack prints its addresses").to_owned()
    };
    Addresses {
        kafka: value(env::KAFKA),
        registry: value(env::REGISTRY),
        database: value(env::DATABASE),
    }
}

/// Mounts a file system of limited size; `None` where this user may not mount.
fn mount(folder: &Path, megabytes: u32) -> Option<PathBuf> {
    fs::create_dir_all(folder).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o"])
        .arg(format!("size={megabytes}m,mode=0777"))
        .arg("tmpfs")
        .arg(folder)
        .output();
    let mounted = mounted.is_ok_and(|output| output.status.success());
    mounted.then(|| folder.to_owned())
}

fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg(folder).output();
}

/// The proxy's address in the form of `bootstrap.servers`.
pub fn bootstrap(proxy: &Proxy) -> String {
    let address: SocketAddr = proxy.address;
    address.to_string()
}
