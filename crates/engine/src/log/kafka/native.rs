//! The only module with `unsafe`: a call that is too slow in the safe wrapper, and one that the wrapper lacks.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;

/// Waits until every sent record is acknowledged or failed.
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

/// The member id in the group; `None` before the join, and after the client has forgotten it.
pub fn member_id<C: ConsumerContext + 'static>(consumer: &BaseConsumer<C>) -> Option<String> {
    let client = consumer.client().native_ptr();
    // SAFETY: the pointer is the live client owned by `consumer`, which is borrowed for the whole call;
    // `rd_kafka_memberid` may be called from any thread, and what it returns is a C string of our own, which is copied
    // before it is freed by the client's own function.
    let id = unsafe {
        let id = rdkafka::bindings::rd_kafka_memberid(client);
        if id.is_null() {
            return None;
        }
        let copy = CStr::from_ptr(id).to_string_lossy().into_owned();
        rdkafka::bindings::rd_kafka_mem_free(client, id.cast());
        copy
    };
    (!id.is_empty()).then_some(id)
}
