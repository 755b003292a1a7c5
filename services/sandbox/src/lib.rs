//! A payment provider and a carrier to try ordermesh against: they keep the promises of the contracts
//! `ordermesh.provider.v1` and `ordermesh.carrier.v1`, each with a ledger of its own that survives `kill -9`.

mod bookings;
mod carrier;
mod charges;
mod config;
mod control;
mod dice;
mod faults;
mod ledger;
mod provider;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use contracts::carrier::v1::carrier_server::{self, CarrierServer};
use contracts::provider::v1::payment_provider_server::{PaymentProvider, PaymentProviderServer};
use contracts::sandbox::v1::sandbox_service_server::{SandboxService, SandboxServiceServer};
use contracts::sandbox::v1::{Behaviour, LedgerBooking, LedgerPayment};
use tonic::service::Routes;

pub use config::{Config, env};

use crate::bookings::Bookings;
use crate::carrier::Carrier;
use crate::charges::Charges;
use crate::control::Control;
use crate::faults::Faulty;
use crate::ledger::{Index, Ledger};
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
    provider: Arc<Faulty<Provider>>,
    carrier: Arc<Faulty<Carrier>>,
    manners: Manners,
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
        let clock: Clock = Arc::new(now_ms);
        let payments: Arc<Ledger<Charges>> = ledger(folder.join(PAYMENTS_FILE), &clock)?;
        let bookings: Arc<Ledger<Bookings>> = ledger(folder.join(BOOKINGS_FILE), &clock)?;
        Ok(Self::of(payments, bookings, config.behaviour, clock))
    }

    /// A new sandbox whose ledgers are kept in memory, and that lives by that clock (Unix milliseconds).
    pub fn in_memory(behaviour: Behaviour, clock: Clock) -> Self {
        let payments = Arc::new(Ledger::in_memory(Arc::clone(&clock)));
        let bookings = Arc::new(Ledger::in_memory(Arc::clone(&clock)));
        Self::of(payments, bookings, behaviour, clock)
    }

    fn of(
        payments: Arc<Ledger<Charges>>,
        bookings: Arc<Ledger<Bookings>>,
        behaviour: Behaviour,
        clock: Clock,
    ) -> Self {
        let manners = Manners::new(behaviour);
        let provider = Provider::new(Arc::clone(&payments), manners.clone());
        let carrier = Carrier::new(Arc::clone(&bookings), manners.clone(), clock);
        let provider = Faulty::new(provider, manners.clone(), |behaviour| behaviour.provider);
        let carrier = Faulty::new(carrier, manners.clone(), |behaviour| behaviour.carrier);
        Self {
            payments,
            bookings,
            provider: Arc::new(provider),
            carrier: Arc::new(carrier),
            manners,
        }
    }

    /// Changes how the partners behave from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.manners.set(behaviour);
    }

    /// What a provider without a file has decided, in order.
    pub fn payments(&self) -> Vec<LedgerPayment> {
        let entries = self.payments.remembered().into_iter();
        entries.map(control::payment).collect()
    }

    /// What a carrier without a file has decided, in order.
    pub fn bookings(&self) -> Vec<LedgerBooking> {
        let entries = self.bookings.remembered().into_iter();
        entries.map(control::booking).collect()
    }

    /// The payment provider.
    pub fn provider(&self) -> PaymentProviderServer<impl PaymentProvider> {
        PaymentProviderServer::from_arc(Arc::clone(&self.provider))
    }

    /// The carrier.
    pub fn carrier(&self) -> CarrierServer<impl carrier_server::Carrier> {
        CarrierServer::from_arc(Arc::clone(&self.carrier))
    }

    /// The sandbox's own service.
    pub fn control(&self) -> SandboxServiceServer<impl SandboxService> {
        SandboxServiceServer::new(Control::new(
            Arc::clone(&self.payments),
            Arc::clone(&self.bookings),
            self.manners.clone(),
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

fn ledger<I: Index>(path: PathBuf, clock: &Clock) -> Result<Arc<Ledger<I>>, Error> {
    match Ledger::open(&path, Arc::clone(clock)) {
        Ok(ledger) => Ok(Arc::new(ledger)),
        Err(source) => Err(Error::Ledger { path, source }),
    }
}

/// Tells Unix milliseconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Unix milliseconds by the clock of this machine.
fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
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
