//! Payments: the rule book of a payment, and the payment provider that carries out its effects.

mod payment;
mod provider;

pub use payment::{Effect, PaymentRules};
pub use provider::{PROVIDER, Provider};
