//! Streams the partners' ledgers.

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

/// Deadline for a whole ledger.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The client of the ledgers.
pub struct Ledgers {
    sandbox: SandboxServiceClient<Peer>,
    runtime: Handle,
}

fn failed(ledger: &'static str, status: &Status) -> Error {
    let error = anyhow::anyhow!(retry::describe(status)).context(ledger);
    Error::Source(error.into())
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

impl Ledgers {
    /// Connects lazily. Call it within a tokio runtime.
    pub fn new(sandbox: SandboxServiceClient<Peer>) -> Self {
        Self {
            sandbox,
            runtime: Handle::current(),
        }
    }

    /// The ledger of the payment provider. The iterator blocks: use it on a thread of the runtime that may block.
    pub fn payments(&self) -> Result<Items<'_, LedgerPayment>, Error> {
        const LEDGER: &str = "the payment provider's ledger";
        let mut client = self.sandbox.clone();
        let listing = client.list_payments(request(ListPaymentsRequest {}));
        let listing = self.runtime.block_on(listing);
        let entries = listing.map_err(|status| failed(LEDGER, &status))?;
        Ok(self.entries(LEDGER, entries.into_inner()))
    }

    /// The ledger of the carrier. Blocks like [`payments`](Self::payments).
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

/// Checks before a long audit that the sandbox answers.
///
/// # Errors
///
/// The sandbox does not answer.
pub async fn check_reachable(sandbox: &SandboxServiceClient<Peer>) -> anyhow::Result<()> {
    let request = platform_client::request(contracts::sandbox::v1::GetBehaviourRequest {});
    let answer = sandbox.clone().get_behaviour(request).await;
    answer
        .map(drop)
        .map_err(|status| anyhow::anyhow!(retry::describe(&status)))
        .context("the partners' ledgers")
}
