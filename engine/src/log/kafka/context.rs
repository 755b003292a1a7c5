//! What librdkafka says besides answers.

use rdkafka::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Says nothing about ends of partitions, which are answers here, and logs the rest.
pub struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// Logs what a client reports besides its answers.
pub fn report(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        // Said with each try to connect anew, and kept until the client is served: hundreds of lines at once would bury
        // what the worker says of the same trouble.
        Some(RDKafkaErrorCode::AllBrokersDown) => tracing::debug!(%error, reason, "log client"),
        _ => tracing::warn!(%error, reason, "log client"),
    }
}
