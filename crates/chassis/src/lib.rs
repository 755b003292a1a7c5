//! What every service stands on: process life, configuration, gRPC server and client stacks, the mapping of errors
//! to gRPC, and health.
//!
//! A service's start is a few lines: parse its configuration ([`config`]), bind its ports ([`grpc::Server`],
//! [`admin::Admin`]), spawn its parts on a [`Process`], and [`Process::run`].

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

pub use process::{Ending, Process};
pub use readiness::{Component, Readiness, Report};
