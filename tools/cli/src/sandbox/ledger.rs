//! `ordermesh sandbox ledger`.

use std::time::Duration;

use clap::ValueEnum;
use contracts::sandbox::v1::{
    LedgerBooking, LedgerPayment, ListBookingsRequest, ListPaymentsRequest,
};
use platform_client::Sandbox;
use terminal::{money, print_json, print_line};
use tonic::{Request, Streaming};
use uuid::Uuid;

use crate::order::order_id;

/// Time limit for reading a whole ledger.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Flags of `ordermesh sandbox ledger`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Entries are in the order in which they were written; their keys begin with the order id.

Examples:
  ordermesh sandbox ledger payments
  ordermesh sandbox ledger bookings --json
  ordermesh sandbox ledger payments --order 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11")]
pub struct Args {
    /// Which ledger
    #[arg(value_name = "LEDGER")]
    ledger: Ledger,
    /// Only what belongs to this order
    #[arg(long, value_name = "ID", value_parser = order_id)]
    order: Option<Uuid>,
    /// Print one entry a line as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sandbox: Sandbox,
}

/// The ledgers.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Ledger {
    /// The payment provider's
    Payments,
    /// The carrier's
    Bookings,
}

/// Prints the entries.
///
/// # Errors
///
/// The sandbox does not answer.
pub async fn ledger(args: &Args) -> anyhow::Result<()> {
    let mut client = args.sandbox.connect();
    match args.ledger {
        Ledger::Payments => {
            let listing = client.list_payments(within(ListPaymentsRequest {})).await;
            args.print(listing, |entry| args.payment(entry)).await
        }
        Ledger::Bookings => {
            let listing = client.list_bookings(within(ListBookingsRequest {})).await;
            args.print(listing, |entry| args.booking(entry)).await
        }
    }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

impl Args {
    async fn print<T>(
        &self,
        listing: Result<tonic::Response<Streaming<T>>, tonic::Status>,
        print: impl Fn(&T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let failed = |status| self.sandbox.failed(&status);
        let mut entries = listing.map_err(failed)?.into_inner();
        while let Some(entry) = entries.message().await.map_err(failed)? {
            print(&entry)?;
        }
        Ok(())
    }

    fn payment(&self, entry: &LedgerPayment) -> anyhow::Result<()> {
        if !self.shows(&entry.idempotency_key) {
            return Ok(());
        }
        if self.json {
            return print_json(entry);
        }
        let amount = entry.amount.as_ref();
        let amount = amount.map_or_else(String::new, |amount| {
            money(amount.minor_units, &amount.currency)
        });
        let (kind, key, reference) = (&entry.kind, &entry.idempotency_key, &entry.reference);
        print_line(format!("{kind:<15}{amount:>20}  {key:<50}{reference}").trim_end())
    }

    fn booking(&self, entry: &LedgerBooking) -> anyhow::Result<()> {
        if !self.shows(&entry.idempotency_key) {
            return Ok(());
        }
        if self.json {
            return print_json(entry);
        }
        let (kind, key, number) = (&entry.kind, &entry.idempotency_key, &entry.tracking_number);
        print_line(format!("{kind:<15}{key:<50}{number}").trim_end())
    }

    fn shows(&self, key: &str) -> bool {
        self.order.is_none_or(|order_id| {
            key.strip_prefix(&order_id.to_string())
                .is_some_and(|rest| rest.starts_with('/'))
        })
    }
}
