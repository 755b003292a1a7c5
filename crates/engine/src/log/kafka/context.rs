//! What librdkafka says besides answers, at the level that it deserves.

use std::sync::Mutex;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The context of clients that only answer.
#[derive(Debug, Default)]
pub struct Quiet {
    reports: Reports,
}

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.tell(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ConsumerContext for Quiet {}

/// What a client has reported besides its answers.
///
/// A broker that cannot be reached is reported with each try to connect. The client's caller sees the failure as well
/// and logs the outage once, so the client's own reports of it are for debugging. So is a report that repeats the last
/// one: a record that cannot be decompressed is reported with each fetch.
#[derive(Debug, Default)]
pub struct Reports {
    last: Mutex<String>,
}

impl Reports {
    /// Logs a report.
    pub fn tell(&self, error: &KafkaError, reason: &str) {
        let is_usual = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => return,
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => true,
            _ => {
                let mut last = self.last.lock().expect("no holder panics");
                let is_repeated = *last == reason;
                reason.clone_into(&mut last);
                is_repeated
            }
        };
        if is_usual {
            tracing::debug!(%error, reason, "log client");
        } else {
            tracing::warn!(%error, reason, "log client");
        }
    }
}

/// librdkafka's log lines on lost and refused connections, on requests that timed out, and on what follows from them for
/// partitions and transactions: one for each try, client and partition.
const CONNECTION_FACILITIES: [&str; 8] = [
    "FAIL",
    "ERROR",
    "REQTMOUT",
    "CONNECT",
    "BROKERFAIL",
    "GETPID",
    "METADATAUPDATE",
    "TXNERR",
];

/// Logs librdkafka's own log lines; those on connections at debug level, for the reason that [`Reports`] gives.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if CONNECTION_FACILITIES.contains(&facility) {
        tracing::debug!(facility, line = message, "log client");
        return;
    }
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(facility, line = message, "log client"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, line = message, "log client");
        }
    }
}

/// Why the broker does not serve, in words that stay the same while an outage goes on: a client meets one and the same
/// outage as a broken connection, a time-out or missing brokers, whichever comes first.
pub fn cause(error: &KafkaError) -> String {
    let words = match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::Resolve,
        ) => "the broker does not answer",
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::BrokerNotAvailable,
        ) => "partitions have no leader: the broker is starting, or was fenced by its controller",
        Some(
            RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::NotCoordinator,
        ) => "the group's coordinator is not available",
        _ => return error.to_string(),
    };
    tracing::debug!(%error, "log client");
    words.to_owned()
}
