//! The commands that look at the platform and act on it: each reads its flags, asks, and prints the answer.

pub mod audit;
pub mod doctor;
pub mod events;
pub mod order;
pub mod sandbox;
pub mod status;
pub mod stock;
pub mod topics;

/// Flags that are right one by one and wrong together; ends with [`chassis::config::EXIT_BAD_VALUE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);
