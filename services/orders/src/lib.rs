//! Orders: the rule book and process manager of an order, and the API with which clients place and cancel orders.

mod api;
mod config;
mod order;

pub use api::{Api, reasons};
pub use config::{Config, env};
pub use order::OrderRules;
