//! The gateway before small services of the test's own, on loopback ports chosen by the system.

mod document;
mod grpc;
mod peers;
mod rest;
mod watch;
