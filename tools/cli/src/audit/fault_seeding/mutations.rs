//! The mutations.

mod clients;
mod ledgers;
mod log;
mod read_model;

use audit::Invariant;

use super::records::MutableEvidence;

/// Name, violated invariant, and the change that adds the violation to healthy evidence.
pub type Mutation = (&'static str, Invariant, fn(&mut MutableEvidence<'_>));

/// Every mutation.
pub fn mutations() -> impl Iterator<Item = &'static Mutation> {
    let groups = [
        log::LOG,
        ledgers::LEDGERS,
        read_model::READ_MODEL,
        clients::CLIENTS,
    ];
    groups.into_iter().flatten()
}
