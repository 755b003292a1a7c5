//! The dashboards, one module each.

pub(crate) mod effects;
pub(crate) mod engine;
pub(crate) mod infrastructure;
pub(crate) mod orders;
pub(crate) mod read_side;
pub(crate) mod services;
