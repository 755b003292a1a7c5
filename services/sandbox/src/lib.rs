//! A payment provider and a carrier for tests and demos. They implement the contracts `ordermesh.provider.v1` and
//! `ordermesh.carrier.v1`; each has its own ledger, which survives `kill -9`.

mod bookings;
mod carrier;
mod charges;
mod config;
mod control;
mod derived;
mod faults;
mod ledger;
mod provider;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use contracts::carrier::v1::carrier_server::{self, CarrierServer};
use contracts::provider::v1::payment_provider_server::{PaymentProvider, PaymentProviderServer};
use contracts::sandbox::v1::sandbox_service_server::{SandboxService, SandboxServiceServer};
use contracts::sandbox::v1::{Behaviour, LedgerBooking, LedgerPayment};
use parking_lot::RwLock;
use tonic::service::Routes;

pub use config::{Config, env};

use crate::bookings::Bookings;
use crate::carrier::Carrier;
use crate::charges::Charges;
use crate::control::Control;
use crate::faults::FaultInjector;
use crate::ledger::{Index, Ledger};
use crate::provider::Provider;

const PAYMENTS_FILE: &str = "payments.jsonl";
const BOOKINGS_FILE: &str = "bookings.jsonl";

/// Why the sandbox cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of the ledgers cannot be created.
    #[error("cannot create the folder of the sandbox's ledgers {path}", path = path.display())]
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

/// An open sandbox. Clones share the ledgers.
#[derive(Clone)]
pub struct Sandbox {
    payments: Arc<Ledger<Charges>>,
    bookings: Arc<Ledger<Bookings>>,
    provider: Arc<FaultInjector<Provider>>,
    carrier: Arc<FaultInjector<Carrier>>,
    behaviour: SharedBehaviour,
}

impl Sandbox {
    /// Opens the ledgers or creates new ones. Blocks while it reads every entry: call it at start-up.
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
        let payments: Arc<Ledger<Charges>> = open_ledger(folder.join(PAYMENTS_FILE), &clock)?;
        let bookings: Arc<Ledger<Bookings>> = open_ledger(folder.join(BOOKINGS_FILE), &clock)?;
        Ok(Self::new(payments, bookings, config.behaviour, clock))
    }

    /// A new sandbox with ledgers in memory. It reads the time from `clock`.
    pub fn in_memory(behaviour: Behaviour, clock: Clock) -> Self {
        let payments = Arc::new(Ledger::in_memory(Arc::clone(&clock)));
        let bookings = Arc::new(Ledger::in_memory(Arc::clone(&clock)));
        Self::new(payments, bookings, behaviour, clock)
    }

    fn new(
        payments: Arc<Ledger<Charges>>,
        bookings: Arc<Ledger<Bookings>>,
        behaviour: Behaviour,
        clock: Clock,
    ) -> Self {
        let behaviour = SharedBehaviour::new(behaviour);
        let provider = Provider::new(Arc::clone(&payments), behaviour.clone());
        let carrier = Carrier::new(Arc::clone(&bookings), behaviour.clone(), clock);
        let provider =
            FaultInjector::new(provider, behaviour.clone(), |behaviour| behaviour.provider);
        let carrier = FaultInjector::new(carrier, behaviour.clone(), |behaviour| behaviour.carrier);
        Self {
            payments,
            bookings,
            provider: Arc::new(provider),
            carrier: Arc::new(carrier),
            behaviour,
        }
    }

    /// Changes how the partners behave from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.behaviour.set(behaviour);
    }

    /// The entries of the provider's in-memory ledger, in order; empty when the ledger is a file.
    pub fn payments(&self) -> Vec<LedgerPayment> {
        let entries = self.payments.in_memory_entries().into_iter();
        entries.map(control::payment).collect()
    }

    /// The entries of the carrier's in-memory ledger, in order; empty when the ledger is a file.
    pub fn bookings(&self) -> Vec<LedgerBooking> {
        let entries = self.bookings.in_memory_entries().into_iter();
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

    /// The service that lists the ledgers and sets the behaviour.
    pub fn control(&self) -> SandboxServiceServer<impl SandboxService> {
        SandboxServiceServer::new(Control::new(
            Arc::clone(&self.payments),
            Arc::clone(&self.bookings),
            self.behaviour.clone(),
        ))
    }

    /// The routes of all three services.
    pub fn routes(&self) -> Routes {
        Routes::new(self.provider())
            .add_service(self.carrier())
            .add_service(self.control())
    }

    /// Writes the buffered entries and closes the ledgers. Later calls that need a new entry fail with UNAVAILABLE.
    pub async fn close(&self) {
        self.payments.close().await;
        self.bookings.close().await;
    }
}

fn open_ledger<I: Index>(path: PathBuf, clock: &Clock) -> Result<Arc<Ledger<I>>, Error> {
    match Ledger::open(&path, Arc::clone(clock)) {
        Ok(ledger) => Ok(Arc::new(ledger)),
        Err(source) => Err(Error::Ledger { path, source }),
    }
}

/// Returns the current time, Unix milliseconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The time of the system clock, Unix milliseconds.
fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// The current behaviour of the partners, shared by the services.
#[derive(Clone)]
struct SharedBehaviour(Arc<RwLock<Behaviour>>);

impl SharedBehaviour {
    fn new(behaviour: Behaviour) -> Self {
        Self(Arc::new(RwLock::new(behaviour)))
    }

    fn get(&self) -> Behaviour {
        *self.0.read()
    }

    fn set(&self, behaviour: Behaviour) {
        *self.0.write() = behaviour;
    }
}

#[cfg(test)]
mod tests;
