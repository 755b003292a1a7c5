//! The servers under test: where they are, and how single parts of the stack are killed and started.

use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Names of the environment variables that tell the tests where they run.
pub mod env {
    /// Kafka's bootstrap servers.
    pub const KAFKA: &str = "ORDERMESH_KAFKA";
    /// URL of the schema registry.
    pub const REGISTRY: &str = "ORDERMESH_REGISTRY";
    /// URL of a PostgreSQL database; tests make databases of their own beside it.
    pub const DATABASE: &str = "ORDERMESH_DATABASE";
    /// The script that controls the stack.
    pub const STACK: &str = "ORDERMESH_STACK";
}

/// Where servers are.
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
    /// Those that the environment names.
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

/// Held for reading by every test that uses the servers, for writing by one that kills a part of them.
static IN_USE: RwLock<()> = RwLock::new(());

/// The servers, in use together with other tests.
pub struct Shared {
    _use: RwLockReadGuard<'static, ()>,
}

/// The servers, in use by this test alone: it may kill them.
pub struct Alone {
    _use: RwLockWriteGuard<'static, ()>,
}

/// Waits until no test has the servers for itself.
pub fn shared() -> Shared {
    Shared {
        _use: IN_USE.read().unwrap_or_else(PoisonError::into_inner),
    }
}

/// Waits until no other test uses the servers.
pub fn alone() -> Alone {
    Alone {
        _use: IN_USE.write().unwrap_or_else(PoisonError::into_inner),
    }
}

impl Alone {
    /// Runs a command of the stack's script, such as `["kill9", "registry"]`.
    ///
    /// # Panics
    ///
    /// When it fails.
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

/// The value of a variable that every test needs.
///
/// # Panics
///
/// When it is not set: a test that has no servers must not pass.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `make test`, or start a stack and load `compose/native/stack env`")
    })
}
