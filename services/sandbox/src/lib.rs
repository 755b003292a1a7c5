//! A payment provider and a carrier to try ordermesh against: they keep the promises of the contracts
//! `ordermesh.provider.v1` and `ordermesh.carrier.v1`, each with a ledger of its own that survives `kill -9`.

mod bookings;
mod carrier;
mod charges;
mod config;
mod control;
mod dice;
mod ledger;
mod provider;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::{fs, io};

use contracts::carrier::v1::carrier_server::{self, CarrierServer};
use contracts::provider::v1::payment_provider_server::{PaymentProvider, PaymentProviderServer};
use contracts::sandbox::v1::sandbox_service_server::{SandboxService, SandboxServiceServer};
use tonic::service::Routes;

pub use config::{Behaviour, Config, env};

use crate::bookings::Bookings;
use crate::carrier::Carrier;
use crate::charges::Charges;
use crate::control::Control;
use crate::ledger::Ledger;
use crate::provider::Provider;

const PAYMENTS_FILE: &str = "payments.jsonl";
const BOOKINGS_FILE: &str = "bookings.jsonl";

/// Why the sandbox cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of the ledgers cannot be made.
    #[error("cannot make the folder of the sandbox's ledgers {path}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One of the ledgers cannot be opened.
    #[error("cannot open the sandbox's ledger {path}", path = path.display())]
    Ledger {
        /// The ledger's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ledger::Error,
    },
}

/// The sandbox, open. Clones share the ledgers.
#[derive(Clone)]
pub struct Sandbox {
    payments: Arc<Ledger<Charges>>,
    bookings: Arc<Ledger<Bookings>>,
    behaviour: Manners,
}

impl Sandbox {
    /// Opens the ledgers, or starts new ones. Reads them whole, so it blocks; call it while starting.
    ///
    /// # Errors
    ///
    /// The folder or a ledger cannot be opened, a ledger is damaged before its last line, or another process has it
    /// open.
    pub fn open(config: Config) -> Result<Self, Error> {
        let folder = config.ledger;
        if let Err(source) = fs::create_dir_all(&folder) {
            return Err(Error::Folder {
                path: folder,
                source,
            });
        }
        let payments = folder.join(PAYMENTS_FILE);
        let bookings = folder.join(BOOKINGS_FILE);
        Ok(Self {
            payments: Ledger::open(&payments)
                .map(Arc::new)
                .map_err(|source| Error::Ledger {
                    path: payments,
                    source,
                })?,
            bookings: Ledger::open(&bookings)
                .map(Arc::new)
                .map_err(|source| Error::Ledger {
                    path: bookings,
                    source,
                })?,
            behaviour: Manners::new(config.behaviour),
        })
    }

    /// The payment provider.
    pub fn provider(&self) -> PaymentProviderServer<impl PaymentProvider> {
        PaymentProviderServer::new(Provider::new(
            Arc::clone(&self.payments),
            self.behaviour.clone(),
        ))
    }

    /// The carrier.
    pub fn carrier(&self) -> CarrierServer<impl carrier_server::Carrier> {
        CarrierServer::new(Carrier::new(
            Arc::clone(&self.bookings),
            self.behaviour.clone(),
        ))
    }

    /// The sandbox's own service.
    pub fn control(&self) -> SandboxServiceServer<impl SandboxService> {
        SandboxServiceServer::new(Control::new(
            Arc::clone(&self.payments),
            Arc::clone(&self.bookings),
            self.behaviour.clone(),
        ))
    }

    /// All three on one server.
    pub fn routes(&self) -> Routes {
        Routes::new(self.provider())
            .add_service(self.carrier())
            .add_service(self.control())
    }

    /// Writes what is still to be written and closes the ledgers; what would need a new entry is answered UNAVAILABLE
    /// from then on.
    pub async fn close(&self) {
        self.payments.close().await;
        self.bookings.close().await;
    }
}

/// The behaviour in force, shared by the services.
#[derive(Clone)]
struct Manners(Arc<RwLock<Behaviour>>);

impl Manners {
    fn new(behaviour: Behaviour) -> Self {
        Self(Arc::new(RwLock::new(behaviour)))
    }

    fn get(&self) -> Behaviour {
        *self.0.read().expect("nobody panics while holding it")
    }

    fn set(&self, behaviour: Behaviour) {
        *self.0.write().expect("nobody panics while holding it") = behaviour;
    }
}

#[cfg(test)]
mod tests;
