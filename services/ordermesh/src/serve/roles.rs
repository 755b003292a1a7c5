//! One file for each role: composes and starts it.

pub(super) mod auditor;
pub(super) mod gateway;
pub(super) mod inventory;
pub(super) mod lag;
pub(super) mod orders;
pub(super) mod payments;
pub(super) mod query;
pub(super) mod sandbox;
pub(super) mod shipping;
