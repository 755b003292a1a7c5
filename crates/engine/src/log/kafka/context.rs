//! Logs librdkafka's error reports and log lines at a fitting level.

use parking_lot::Mutex;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A client context that only logs.
#[derive(Debug, Default)]
pub struct LoggingContext {
    reports: Reports,
}

impl ClientContext for LoggingContext {
    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.report(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ConsumerContext for LoggingContext {}

/// Logs a client's error reports.
///
/// librdkafka reports an unreachable broker with each connection attempt. The caller sees the failure too and logs the
/// outage once, so the reports are logged at debug level. So is a report that repeats the last one: a record that
/// cannot be decompressed is reported with each fetch.
#[derive(Debug, Default)]
pub struct Reports {
    last: Mutex<String>,
}

impl Reports {
    /// Logs a report.
    pub fn report(&self, error: &KafkaError, reason: &str) {
        let is_usual = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => return,
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => true,
            _ => {
                let mut last = self.last.lock();
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

/// Facilities of log lines on lost and refused connections, request time-outs, and their consequences for partitions
/// and transactions: one line for each try, client and partition.
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

/// Logs librdkafka's log lines; those on connections at debug level, for the reason given at [`Reports`].
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

/// Cause of a failure, as a text that stays the same during an outage: one outage appears as a broken connection, a
/// time-out or missing brokers, whichever comes first.
pub fn cause(error: &KafkaError) -> String {
    let text = match error.rdkafka_error_code() {
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
    text.to_owned()
}
