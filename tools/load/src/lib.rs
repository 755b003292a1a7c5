//! `ordermesh load`: places the baskets of a file as orders over the public API, exactly once even when it is stopped
//! and restarted, and verifies what became of them.

pub mod baskets;
pub mod journal;
pub mod latency;
pub mod loader;
pub mod report;
pub mod verify;

mod refusal;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use baskets::{BasketFile, CURRENCY};
use journal::{BasketResult, Journal};
use latency::Latency;
use loader::{LoadSettings, PlacedOrders};
use platform_client::{Api, Clients};
use terminal::progress::Progress;
use terminal::{Align, Table, count, duration, money, print_line};
use verify::Verification;

/// Default of `--concurrency`: enough to fill the batches of the workers.
pub const DEFAULT_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(256).expect("it is not 0");

/// Largest value of `--verify`: a day.
const MAX_WAIT_SECONDS: u64 = 24 * 60 * 60;

/// Flags of `ordermesh load`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The file is CSV, plain or gzipped, with the columns basket_id, customer_id, sku, description, quantity and
amount_cents; the lines of a basket are consecutive. Lines that the API refuses go to the report.

The load can be stopped with Ctrl-C, or killed: the same command continues where it stopped.

With --verify, every acknowledged order is read over the API after the load: it must be final, and have the total of its
accepted lines. When the load is complete already, the same command only verifies.

Exits with 1 when a basket has no final answer, or when an order is missing, not final or has another total.

Examples:
  ordermesh load --file baskets.csv.gz
  ordermesh load --file baskets.csv.gz --rate 100 --limit 1000 --report refused.csv
  ordermesh load --file baskets.csv.gz --verify 60")]
pub struct Args {
    /// The file of baskets
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Baskets begun each second [default: as many as possible]
    #[arg(long, value_name = "PER SECOND", value_parser = per_second)]
    rate: Option<f64>,
    /// Most baskets under way at once
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_CONCURRENCY)]
    concurrency: NonZeroUsize,
    /// Only the first baskets of the file
    #[arg(long, value_name = "BASKETS")]
    limit: Option<NonZeroUsize>,
    /// Keeps what has become of every basket [default: the file's name and .journal, in this folder]
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Where refused lines are listed [default: the file's name and .report.csv, in this folder]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Seconds that a basket is tried before the load gives up
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
    /// Verify the orders after the load, and wait this long until all of them are final
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=MAX_WAIT_SECONDS))]
    verify: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: Api,
}

fn per_second(text: &str) -> Result<f64, String> {
    let valid = text
        .parse()
        .ok()
        .filter(|rate: &f64| (0.001..=100_000.0).contains(rate));
    valid.ok_or_else(|| "expected a number from 0.001 to 100000".to_owned())
}

/// Loads until every basket has a final answer, and then verifies the orders when that is asked for.
///
/// # Errors
///
/// The file or the journal is invalid, the API does not answer in time, or the report cannot be written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut file = BasketFile::open(&args.file)?;
    let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", file.name));
    let journal_path = args.journal.clone().unwrap_or_else(|| beside(".journal"));
    let report_path = args.report.clone().unwrap_or_else(|| beside(".report.csv"));
    let journal = Arc::new(Journal::open(&journal_path, &file)?);
    report::check(&report_path, &args.file, &journal_path)?;
    if let Some(limit) = args.limit {
        file.truncate(limit.get());
    }

    let answered = Counts::of(&file, &journal).answered();
    if answered > 0 && !args.json {
        let (answered, all) = (count(answered), count(file.baskets.len()));
        print_line(format!(
            "{answered} of {all} baskets already have a final answer in {}",
            journal_path.display()
        ))?;
    }
    let progress = Arc::new(Progress::new("orders", file.baskets.len()));
    progress.set_position(answered);
    let stop = platform_client::shutdown_signal()?;
    let settings = LoadSettings {
        concurrency: args.concurrency,
        per_second: args.rate,
        patience: Duration::from_secs(args.patience),
        probe_every: None,
    };
    let clients = args.api.connect();
    let began = Instant::now();
    let placed = loader::place(
        &file.baskets,
        &journal,
        &clients,
        &settings,
        &progress,
        &stop,
    )
    .await;
    let took = began.elapsed();
    drop(progress);

    // The report is written also when the load has failed.
    report::write(&report_path, &file, &journal.history())?;
    let placed = placed?;
    let counts = Counts::of(&file, &journal);
    let is_complete = counts.answered() == file.baskets.len();
    let verified = match args.verify {
        Some(seconds) if is_complete => {
            let patience = Duration::from_secs(seconds);
            Some(verify_orders(&file, &journal, &clients, patience, &stop).await)
        }
        _ => None,
    };
    let result = Summary {
        counts: &counts,
        placed: &placed,
        took,
        verification: verified.as_ref().and_then(|result| result.as_ref().ok()),
    };
    if args.json {
        print_line(result.json().to_string())?;
    } else {
        print_line(result.table(&report_path).to_string())?;
    }
    // After the result of the load, which does not depend on the verification.
    let verification = verified.transpose()?;
    let passed = verification.is_none_or(|verification| verification.passed());
    Ok(terminal::exit_code(is_complete && passed))
}

async fn verify_orders(
    file: &BasketFile,
    journal: &Journal,
    clients: &Clients,
    patience: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Verification> {
    let orders = verify::acknowledged_orders(file, &journal.history());
    let progress = Progress::new("verified", orders.len());
    tokio::select! {
        verification = verify::verify(&orders, clients, patience, &progress) => Ok(verification?),
        () = stop.cancelled() => {
            bail!("interrupted before all orders were verified; the same command verifies again")
        }
    }
}

/// The results of the baskets of a file, counted from its journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All baskets of the file.
    pub baskets: usize,
    /// Baskets that became orders.
    pub orders: usize,
    /// Lines of these orders.
    pub lines: usize,
    /// Sum of the totals of these orders, in minor units.
    pub cents: i64,
    /// Refused baskets.
    pub refused_baskets: usize,
    /// Refused lines, those of refused baskets included.
    pub refused_lines: usize,
}

impl Counts {
    /// Counts the baskets of `file`.
    pub fn of(file: &BasketFile, journal: &Journal) -> Self {
        let mut counts = Self {
            baskets: file.baskets.len(),
            ..Self::default()
        };
        let history = journal.history();
        for basket in &file.baskets {
            let state = history.basket(&basket.id);
            match state.result {
                Some(BasketResult::Acknowledged { lines, cents }) => {
                    counts.orders += 1;
                    counts.lines += lines;
                    counts.cents += cents;
                    counts.refused_lines += state.refused_lines.len();
                }
                Some(BasketResult::Refused { .. }) => {
                    counts.refused_baskets += 1;
                    counts.refused_lines += basket.lines.len();
                }
                None => {}
            }
        }
        counts
    }

    const fn answered(&self) -> usize {
        self.orders + self.refused_baskets
    }
}

struct Summary<'a> {
    counts: &'a Counts,
    placed: &'a PlacedOrders,
    took: Duration,
    verification: Option<&'a Verification>,
}

impl Summary<'_> {
    fn latency(&self) -> Latency {
        Latency::of(self.placed.orders.iter().map(|order| order.acknowledged))
    }

    fn table(&self, report: &std::path::Path) -> Table {
        let Self {
            counts,
            placed,
            took,
            verification,
        } = self;
        let mut table = Table::new([("", Align::Left), ("", Align::Right), ("", Align::Left)]);
        let mut row =
            |name: &str, number: usize, rest: String| table.row([name.into(), count(number), rest]);
        row("baskets", counts.baskets, String::new());
        let total = money(counts.cents, CURRENCY);
        row(
            "orders",
            counts.orders,
            format!("{} lines, {total}", count(counts.lines)),
        );
        row(
            "refused",
            counts.refused_lines,
            format!("lines, see {}", report.display()),
        );
        if counts.refused_baskets > 0 {
            row("", counts.refused_baskets, "baskets as a whole".into());
        }
        let open = counts.baskets - counts.answered();
        if open > 0 {
            row(
                "open",
                open,
                "baskets; the same command continues with them".into(),
            );
        }
        let now = placed.orders.len();
        row(
            "now",
            now,
            format!(
                "orders in {}, {}/s",
                duration(*took),
                count(self.per_second())
            ),
        );
        if now > 0 {
            table.row(["answers".into(), String::new(), self.latency().to_string()]);
        }
        for row in verification.iter().flat_map(|result| result.rows()) {
            table.row(row);
        }
        table
    }

    fn json(&self) -> serde_json::Value {
        let Self {
            counts,
            placed,
            took,
            verification,
        } = self;
        let mut value = json!({
            "baskets": counts.baskets,
            "orders": counts.orders,
            "lines": counts.lines,
            "cents": counts.cents,
            "currency": CURRENCY,
            "refused_baskets": counts.refused_baskets,
            "refused_lines": counts.refused_lines,
            "open": counts.baskets - counts.answered(),
            "interrupted": placed.interrupted,
            "placed_now": placed.orders.len(),
            "seconds": took.as_secs_f64(),
            "answer_ms": self.latency().json(),
        });
        if let Some(verification) = verification {
            value["verification"] = json!(verification);
        }
        value
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    fn per_second(&self) -> u64 {
        (self.placed.orders.len() as f64 / self.took.as_secs_f64().max(0.001)) as u64
    }
}
