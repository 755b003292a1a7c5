//! What can go wrong with the registry.

use std::time::Duration;

use crate::compatibility::Violation;

/// Why contracts could not be registered, or the registry not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured address cannot be used.
    #[error("{url} is no schema registry address: {reason}")]
    Address {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry was down, or in trouble, for as long as start-up waits.
    #[error("the schema registry did not answer within {} s", .waited.as_secs_f32())]
    Unavailable {
        /// How long start-up has waited.
        waited: Duration,
        /// The last try's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry is down or in trouble; nothing is known about what was asked.
    #[error("the schema registry cannot be reached")]
    Unreachable {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry answered with a definite no.
    #[error("the schema registry refused {subject}")]
    Refused {
        /// The subject that was asked for or registered.
        subject: String,
        /// Its answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The contracts of this binary break a registered version.
    #[error("{subject}: incompatible with registered version {version}: {}", list(.violations))]
    Incompatible {
        /// The subject.
        subject: String,
        /// The registered version.
        version: u32,
        /// Everything that the gate found.
        violations: Vec<Violation>,
    },
    /// The subject has moved on past the contracts of this binary, which were never registered.
    #[error(
        "{subject}: registered version {version} is newer than this binary, which must be upgraded to write"
    )]
    Outdated {
        /// The subject.
        subject: String,
        /// The registered version.
        version: u32,
    },
}

fn list(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
