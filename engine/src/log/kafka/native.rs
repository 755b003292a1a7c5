//! The one place with `unsafe`: a call that the safe wrapper makes too slow.

#![allow(unsafe_code)]

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;

/// Waits until every record handed to the producer is acknowledged or failed.
///
/// rust-rdkafka's own `flush` sleeps in steps of 100 ms while a record is outstanding, which bounds a worker to ten
/// transactions a second. librdkafka's returns as soon as the last record is done; the delivery reports are served
/// by the threaded producer's own polling thread.
pub fn flush<C: ProducerContext + 'static>(
    producer: &ThreadedProducer<C>,
    timeout: Duration,
) -> Result<(), KafkaError> {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is the live client owned by `producer`, which is borrowed for the whole call, and
    // `rd_kafka_flush` may be called from any thread.
    let error =
        unsafe { rdkafka::bindings::rd_kafka_flush(producer.client().native_ptr(), millis) };
    match error {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(KafkaError::Flush(error.into())),
    }
}
