//! The whole system as its user runs it.

mod api;
mod audit;
mod cli;
mod drain;
mod edge;
mod endings;
pub(crate) mod faults;
mod lag;
mod lifecycle;
mod partners;
