//! The partners' ledgers, entry by entry.

use std::time::Duration;

use anyhow::Context as _;
use audit::{Error, Items};
use chassis::grpc::Peer;
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::{
    LedgerBooking, LedgerPayment, ListBookingsRequest, ListPaymentsRequest,
};
use tokio::runtime::Handle;
use tonic::{Request, Status, Streaming};

use platform_client::retry;

/// For a whole ledger.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Where the ledgers are.
pub struct Ledgers {
    sandbox: SandboxServiceClient<Peer>,
    runtime: Handle,
}

fn failed(ledger: &'static str, status: &Status) -> Error {
    let said = anyhow::anyhow!(retry::describe(status)).context(ledger);
    Error::Source(said.into())
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

impl Ledgers {
    /// Connects when it is asked. Call it within a tokio runtime.
    pub fn new(sandbox: SandboxServiceClient<Peer>) -> Self {
        Self {
            sandbox,
            runtime: Handle::current(),
        }
    }

    /// The payment provider's. Blocks, on a thread of the runtime that may.
    pub fn payments(&self) -> Result<Items<'_, LedgerPayment>, Error> {
        const LEDGER: &str = "the payment provider's ledger";
        let mut client = self.sandbox.clone();
        let listing = client.list_payments(request(ListPaymentsRequest {}));
        let listing = self.runtime.block_on(listing);
        let entries = listing.map_err(|status| failed(LEDGER, &status))?;
        Ok(self.entries(LEDGER, entries.into_inner()))
    }

    /// The carrier's. Likewise.
    pub fn bookings(&self) -> Result<Items<'_, LedgerBooking>, Error> {
        const LEDGER: &str = "the carrier's ledger";
        let mut client = self.sandbox.clone();
        let listing = client.list_bookings(request(ListBookingsRequest {}));
        let listing = self.runtime.block_on(listing);
        let entries = listing.map_err(|status| failed(LEDGER, &status))?;
        Ok(self.entries(LEDGER, entries.into_inner()))
    }

    fn entries<'a, T: 'a>(
        &'a self,
        ledger: &'static str,
        mut entries: Streaming<T>,
    ) -> Items<'a, T> {
        Box::new(std::iter::from_fn(move || {
            let entry = self.runtime.block_on(entries.message());
            entry.map_err(|status| failed(ledger, &status)).transpose()
        }))
    }
}

/// Whether the sandbox can be reached at all, before a long reading begins.
///
/// # Errors
///
/// It cannot.
pub async fn reach(sandbox: &SandboxServiceClient<Peer>) -> anyhow::Result<()> {
    let request = platform_client::request(contracts::sandbox::v1::GetBehaviourRequest {});
    let answer = sandbox.clone().get_behaviour(request).await;
    answer
        .map(drop)
        .map_err(|status| anyhow::anyhow!(retry::describe(&status)))
        .context("the partners' ledgers")
}
