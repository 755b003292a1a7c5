//! The whole system, as its user runs it.

mod api;
mod cli;
mod drain;
mod edge;
mod endings;
mod faults;
mod life;
mod partners;
