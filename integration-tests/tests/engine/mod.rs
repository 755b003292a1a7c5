//! The engine on a real Kafka.

mod conformance;
