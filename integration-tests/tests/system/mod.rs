//! The whole system, as its user runs it.

mod edge;
mod faults;
mod life;
