//! `ordermesh check`: holds read model, log and ledger against each other. Everything is compared at rest, when every
//! order is final.

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
use registry::Schemas;
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::journal;
use platform_client::{Sandbox, Stack};
use terminal::{Align, Table, say};

pub use orders_log::OrdersLog;
pub use orders_model::not_final;

/// Orders whose fold is compared field by field.
const SAMPLE: u32 = 500;
const REST_EVERY: Duration = Duration::from_millis(250);

/// What is checked against what.
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

/// Checks and prints what came out.
///
/// # Errors
///
/// Something that is to be checked does not answer.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let history = args.journal.as_deref().map(journal::history).transpose()?;
    let ground = Sources::open(&args.stack, &args.sandbox).await?;
    wait_for_rest(&ground.pool, Duration::from_secs(args.wait)).await?;
    let promised = Promised {
        orders: history.map(|history| history.acknowledged().map(Acknowledged::from).collect()),
        pieces: None,
    };
    let (checks, _) = all(&ground, &promised, args.sample).await?;
    let passed = checks.iter().all(|check| check.passed);
    say(if args.json {
        json!({ "passed": passed, "checks": checks }).to_string()
    } else {
        table(&checks).to_string()
    })?;
    Ok(terminal::verdict(passed))
}

/// What came out of one comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What is true when it passed.
    pub name: &'static str,
    /// Whether it is.
    pub passed: bool,
    /// The figures behind it.
    pub detail: String,
}

/// Where everything that is compared stands.
pub struct Sources {
    /// The log.
    pub cluster: Arc<Cluster>,
    /// The contracts of its events.
    pub schemas: Schemas,
    /// The read model.
    pub pool: PgPool,
    /// The payment provider's ledger.
    pub sandbox: SandboxServiceClient<Peer>,
}

impl Sources {
    /// Reaches for all of it.
    ///
    /// # Errors
    ///
    /// Registry or database do not answer.
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

/// What somebody was told.
#[derive(Clone, Debug, Default)]
pub struct Promised {
    /// The orders that were acknowledged; `None` when nobody has kept count, and the log stands for them.
    pub orders: Option<Vec<Acknowledged>>,
    /// Pieces that were put into stock, where that is known.
    pub pieces: Option<i64>,
}

/// An order that somebody was told of.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Its id.
    pub order_id: Uuid,
    /// Its total, by the lines that were accepted.
    pub cents: i64,
}

impl From<(Uuid, usize, i64)> for Acknowledged {
    fn from((order_id, _, cents): (Uuid, usize, i64)) -> Self {
        Self { order_id, cents }
    }
}

/// Every check, and the fold of the order events that they were made with.
///
/// # Errors
///
/// Something that is to be checked does not answer.
pub async fn all(
    ground: &Sources,
    promised: &Promised,
    sample: u32,
) -> anyhow::Result<(Vec<Check>, OrdersLog)> {
    let sampled: HashSet<Uuid> = orders_model::sample(&ground.pool, sample).await?;
    let (cluster, schemas) = (Arc::clone(&ground.cluster), ground.schemas.clone());
    // The clients of the log block.
    let log =
        tokio::task::spawn_blocking(move || OrdersLog::read(&cluster, schemas, &sampled)).await??;
    let kept = ledger::payments_of_ledger(ground).await?;
    let checks = vec![
        orders_model::money(&ground.pool, promised.orders.as_deref(), &log).await?,
        orders_model::all_final(&ground.pool, promised.orders.as_deref()).await?,
        stock::balanced(&ground.pool, promised.pieces).await?,
        ledger::matches_log(ground, &kept).await?,
        refunds::exact(&log, &kept),
        orders_model::is_fold(&ground.pool, &log).await?,
    ];
    Ok((checks, log))
}

/// The checks as people read them.
pub fn table(checks: &[Check]) -> Table {
    let mut table = Table::new([("", Align::Left), ("", Align::Left)]);
    for check in checks {
        let mark = if check.passed { '✓' } else { '✗' };
        table.row([format!("{mark} {}", check.name), check.detail.clone()]);
    }
    table
}

/// Waits until every order in the read model is final, at most so long.
async fn wait_for_rest(pool: &PgPool, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while not_final(pool).await? > 0 && Instant::now() < deadline {
        sleep(REST_EVERY).await;
    }
    Ok(())
}
