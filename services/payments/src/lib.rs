//! Payments: the rule book of a payment, and the client of the payment provider that executes its effects.

mod config;
mod payment;
mod provider;

pub use config::{Config, env};
pub use payment::{Effect, PaymentRules};
pub use provider::{PROVIDER, Provider};
