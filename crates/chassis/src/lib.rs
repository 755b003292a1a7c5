//! The base of every service: process lifecycle, configuration, gRPC server and client stacks, mapping of errors to
//! gRPC, and health.
//!
//! To start, a service parses its configuration ([`config`]), binds its ports ([`grpc::Server`],
//! [`admin::Admin`]), spawns its tasks on a [`Process`], and calls [`Process::run`].

pub mod admin;
pub mod config;
pub mod env;
pub mod error;
pub mod grpc;
pub mod metrics;
pub mod names;
mod process;
mod readiness;
pub mod stall;
mod states;

pub use process::{Process, TaskResult};
pub use readiness::{Component, Readiness, Report};
pub use states::States;
