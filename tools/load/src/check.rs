//! `ordermesh check`: compares read model, log and ledger. They are comparable only at rest, when every order is final.

mod ledger;
mod orders_log;
mod orders_model;
mod refunds;
mod stock;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chassis::grpc::Peer;
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::{Service, Topic};
use engine::Cluster;
use platform_client::{Sandbox, Stack};
use registry::Schemas;
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use terminal::{Align, Table, print_line};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::journal;

pub use orders_log::OrdersLog;
pub use orders_model::open_orders;

/// Orders whose fold is compared field by field.
const SAMPLE: u32 = 500;
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Flags of `ordermesh check`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Exits with 1 when a check fails.

Examples:
  ordermesh check
  ordermesh check --journal baskets.csv.gz.journal --wait 60 --json")]
pub struct Args {
    /// The journal of a load: what it says was acknowledged must be there
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Orders whose fold is compared field by field
    #[arg(long, value_name = "COUNT", default_value_t = SAMPLE)]
    sample: u32,
    /// Seconds to wait until every order is final
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: Stack,
    #[command(flatten)]
    sandbox: Sandbox,
}

/// Runs all checks and prints the results.
///
/// # Errors
///
/// The log, the read model or the ledger cannot be read.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let history = args.journal.as_deref().map(journal::history).transpose()?;
    let sources = Sources::open(&args.stack, &args.sandbox).await?;
    wait_until_final(&sources.pool, Duration::from_secs(args.wait)).await?;
    let expected = Expected {
        orders: history.map(|history| {
            history
                .acknowledged()
                .map(AcknowledgedOrder::from)
                .collect()
        }),
        pieces: None,
    };
    let (checks, _) = run_all(&sources, &expected, args.sample).await?;
    let passed = checks.iter().all(|check| check.passed);
    print_line(if args.json {
        json!({ "passed": passed, "checks": checks }).to_string()
    } else {
        table(&checks).to_string()
    })?;
    Ok(terminal::exit_code(passed))
}

/// The result of one comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The statement that is checked.
    pub name: &'static str,
    /// Whether the statement holds.
    pub passed: bool,
    /// The figures that were compared.
    pub detail: String,
}

/// Clients of everything that is compared.
pub struct Sources {
    /// Addresses of the log.
    pub cluster: Arc<Cluster>,
    /// Schemas of the events.
    pub schemas: Schemas,
    /// The read model.
    pub pool: PgPool,
    /// The sandbox, which has the ledger of the payment provider.
    pub sandbox: SandboxServiceClient<Peer>,
}

impl Sources {
    /// Connects to all of them.
    ///
    /// # Errors
    ///
    /// The registry or the database does not answer.
    pub async fn open(stack: &Stack, sandbox: &Sandbox) -> anyhow::Result<Self> {
        let events = Service::ALL.map(|service| (service, Topic::Events));
        Ok(Self {
            cluster: Arc::new(platform_client::cluster(&stack.kafka)),
            schemas: platform_client::schemas(&stack.registry, &stack.kafka.prefix, &[], &events)
                .await?,
            pool: platform_client::read_model(&stack.database, query::SCHEMA).await?,
            sandbox: sandbox.connect(),
        })
    }
}

/// What clients know, for comparison with what is stored.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Every acknowledged order; `None` without a journal: the orders of the log are taken instead.
    pub orders: Option<Vec<AcknowledgedOrder>>,
    /// Pieces that were put into stock; `None` when not known.
    pub pieces: Option<i64>,
}

/// An order whose client got an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct AcknowledgedOrder {
    /// The order id.
    pub order_id: Uuid,
    /// Total of the accepted lines, in minor units.
    pub cents: i64,
}

impl From<(Uuid, usize, i64)> for AcknowledgedOrder {
    fn from((order_id, _, cents): (Uuid, usize, i64)) -> Self {
        Self { order_id, cents }
    }
}

/// Runs every check. Returns the results, and the orders of the log that they were computed from.
///
/// # Errors
///
/// The log, the read model or the ledger cannot be read.
pub async fn run_all(
    sources: &Sources,
    expected: &Expected,
    sample: u32,
) -> anyhow::Result<(Vec<Check>, OrdersLog)> {
    let sampled: HashSet<Uuid> = orders_model::sample(&sources.pool, sample).await?;
    let (cluster, schemas) = (Arc::clone(&sources.cluster), sources.schemas.clone());
    // The Kafka clients block.
    let log =
        tokio::task::spawn_blocking(move || OrdersLog::read(&cluster, schemas, &sampled)).await??;
    let ledger = ledger::ledger_payments(sources).await?;
    let checks = vec![
        orders_model::totals_match(&sources.pool, expected.orders.as_deref(), &log).await?,
        orders_model::all_final(&sources.pool, expected.orders.as_deref()).await?,
        stock::balances(&sources.pool, expected.pieces).await?,
        ledger::matches_log(sources, &ledger).await?,
        refunds::refunds_match(&log, &ledger),
        orders_model::matches_fold(&sources.pool, &log).await?,
    ];
    Ok((checks, log))
}

/// The results as a table for people.
pub fn table(checks: &[Check]) -> Table {
    let mut table = Table::new([("", Align::Left), ("", Align::Left)]);
    for check in checks {
        let mark = if check.passed { '✓' } else { '✗' };
        table.row([format!("{mark} {}", check.name), check.detail.clone()]);
    }
    table
}

/// Waits until every order in the read model is final, for `patience` at most.
async fn wait_until_final(pool: &PgPool, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while open_orders(pool).await? > 0 && Instant::now() < deadline {
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
