//! The server and client stacks against each other, on loopback ports chosen by the system.

mod calls;
mod drain;
mod fake;
mod replicas;
mod telemetry;
