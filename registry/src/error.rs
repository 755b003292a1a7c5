//! Errors of the schema registry.

use std::time::Duration;

use crate::compatibility::Violation;

/// Why contracts could not be registered or looked up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured address cannot be used.
    #[error("{url} is no schema registry address: {reason}")]
    Address {
        /// The configured address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry gave no usable answer until the start-up deadline.
    #[error("the schema registry did not answer within {} s", .waited.as_secs_f32())]
    Unavailable {
        /// How long start-up has waited.
        waited: Duration,
        /// The error of the last attempt.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry is down or failing; the result is unknown.
    #[error("the schema registry cannot be reached")]
    Unreachable {
        /// The error of the call.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry refused definitely.
    #[error("the schema registry refused {subject}")]
    Refused {
        /// The subject of the call.
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
        /// All incompatible changes.
        violations: Vec<Violation>,
    },
    /// The registered version contains the contracts of this binary and more, and those of this binary were never
    /// registered.
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
