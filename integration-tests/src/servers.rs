//! The servers under test: their addresses, and shared or exclusive access to them.

use std::io::{Write as _, stderr};
use std::process::{Command, abort};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Names of the environment variables with the addresses of the servers.
pub mod env {
    /// Kafka's bootstrap servers.
    pub const KAFKA: &str = "ORDERMESH_KAFKA";
    /// URL of the schema registry.
    pub const REGISTRY: &str = "ORDERMESH_REGISTRY";
    /// URL of a PostgreSQL database. Tests create databases of their own on the same server.
    pub const DATABASE: &str = "ORDERMESH_DATABASE";
    /// Path of the script that controls the stack.
    pub const STACK: &str = "ORDERMESH_STACK";
}

/// Addresses of the servers.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// URL of the schema registry.
    pub registry: String,
    /// URL of a PostgreSQL database.
    pub database: String,
}

impl Addresses {
    /// Reads the addresses from the environment.
    ///
    /// # Panics
    ///
    /// See [`variable`].
    pub fn of_environment() -> Self {
        Self {
            kafka: variable(env::KAFKA),
            registry: variable(env::REGISTRY),
            database: variable(env::DATABASE),
        }
    }
}

/// Read lock: a test uses the servers. Write lock: a test kills parts of them. The lock is of this process: other
/// processes are not excluded.
static IN_USE: RwLock<()> = RwLock::new(());

/// No test uses the servers for longer. One that hangs would block all tests that need exclusive access.
const MAX_USE: Duration = Duration::from_secs(20 * 60);

/// Shared access to the servers, together with other tests.
pub struct SharedServers {
    _use: RwLockReadGuard<'static, ()>,
    _watchdog: Watchdog,
}

/// Exclusive access to the servers: the test may kill them.
pub struct ExclusiveServers {
    _use: RwLockWriteGuard<'static, ()>,
    _watchdog: Watchdog,
}

/// Prints the test's name and aborts the process if it is not dropped within [`MAX_USE`].
struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    fn start() -> Self {
        let (alive, dropped) = channel();
        let test = thread::current().name().unwrap_or("a test").to_owned();
        thread::spawn(move || {
            if dropped.recv_timeout(MAX_USE) == Err(RecvTimeoutError::Timeout) {
                // `eprintln!` would be captured, and its text be lost with the process.
                let _ = writeln!(
                    stderr(),
                    "{test} hangs: it has used the servers for {MAX_USE:?}"
                );
                abort();
            }
        });
        Self { _alive: alive }
    }
}

/// Waits until no test has exclusive access.
pub fn shared() -> SharedServers {
    SharedServers {
        _use: IN_USE.read(),
        _watchdog: Watchdog::start(),
    }
}

/// Waits until no other test uses the servers.
pub fn exclusive() -> ExclusiveServers {
    ExclusiveServers {
        _use: IN_USE.write(),
        _watchdog: Watchdog::start(),
    }
}

impl ExclusiveServers {
    /// Runs a command of the stack script, such as `["kill9", "registry"]`.
    ///
    /// # Panics
    ///
    /// When the command fails.
    pub fn stack(&self, arguments: [&str; 2]) {
        let script = variable(env::STACK);
        let status = Command::new(&script)
            .args(arguments)
            .status()
            .unwrap_or_else(|error| panic!("{script} cannot be run: {error}"));
        assert!(
            status.success(),
            "{script} {} failed: {status}",
            arguments.join(" ")
        );
    }
}

/// The value of a variable that the tests need.
///
/// # Panics
///
/// When it is not set: a test without servers must not pass.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run `make test`, or start a stack, load `compose/native/stack env` and export {} \
             (see CONTRIBUTING.md)",
            env::STACK
        )
    })
}
