//! `ordermesh demo`: places real orders on a fresh stack, and checks the result.

mod event_tap;
mod figures;
mod scenarios;
mod services;
mod stock;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use chassis::config;
use contracts::{Service, Topic};
use platform_client::topic_reader;
use platform_client::{Api, Clients, Sandbox, Stack};
use serde_json::json;
use sqlx::PgPool;
use terminal::progress::Progress;
use terminal::{count, duration, print_line};
use tokio_util::sync::CancellationToken;

use crate::baskets::BasketFile;
use crate::check::{self, AcknowledgedOrder, Expected, Sources};
use crate::journal::Journal;
use crate::loader::{self, LoadSettings, PlacedOrders};
use crate::{Counts, DEFAULT_CONCURRENCY};
use figures::Speed;
use scenarios::{ScenarioResults, ScenarioRunner};
use services::{Phase, Services};

/// 5,000 real baskets; `data/README.md` says where they are from.
pub const BASKETS: &[u8] = include_bytes!("../data/baskets.csv.gz");
const BASKETS_NAME: &str = "baskets.csv.gz";

const TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time until the read model shows an order is measured for every n-th order.
const VISIBILITY_PROBE_EVERY: NonZeroUsize = NonZeroUsize::new(20).expect("it is not 0");
/// Orders whose fold is compared field by field.
const SAMPLE: u32 = 500;
/// Exit code after Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// Flags of `ordermesh demo`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The stack must be fresh: `make demo` starts one, and stops it afterwards.

Examples:
  ordermesh demo --baskets 500
  ordermesh demo --json | jq .endings")]
pub struct Args {
    /// Only the first baskets
    #[arg(long, value_name = "COUNT")]
    baskets: Option<NonZeroUsize>,
    /// Folder of the journal, the report and the services' log
    #[arg(long, value_name = "FOLDER", default_value = ".stack/demo")]
    folder: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: Stack,
    #[command(flatten)]
    admin: config::Admin,
    #[command(flatten)]
    public: config::Public,
    #[command(flatten)]
    listen: config::Listen,
}

/// Runs the demo; stops the services that it has started.
///
/// # Errors
///
/// A part of the platform fails, or the stack is not fresh.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stop = platform_client::shutdown_signal()?;
    let mut file = BasketFile::parse(BASKETS_NAME, BASKETS)?;
    if let Some(baskets) = args.baskets {
        file.truncate(baskets.get());
    }
    let (baskets, lines) = (count(file.baskets.len()), count(file.line_count()));
    eprintln!("ordermesh demo: {baskets} real baskets, {lines} lines\n");
    prepare(&args).await?;
    let Some(loaded) = run_phase(
        &args,
        Phase::Baskets,
        load_baskets(&args, &file, &stop),
        &stop,
    )
    .await?
    else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    // The services are started again: their decisions are in the log.
    let scenarios = async {
        let results = run_scenarios(&args).await?;
        check_and_report(&args, loaded, results).await
    };
    let result = run_phase(&args, Phase::Endings, scenarios, &stop).await?;
    Ok(result.unwrap_or_else(|| ExitCode::from(INTERRUPTED)))
}

/// Runs a phase of the demo with its own services; `None` when interrupted.
async fn run_phase<T>(
    args: &Args,
    phase: Phase,
    work: impl Future<Output = anyhow::Result<T>>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<T>> {
    let mut services = Services::start(args, phase)?;
    let result = services
        .run_while_up(
            async {
                let ready = services::wait_until_ready(args.admin.address).await?;
                let (ready, log) = (duration(ready), services::log_path(&args.folder));
                print_step(
                    "services",
                    &format!("ready after {ready}, log in {}", log.display()),
                );
                work.await
            },
            stop,
        )
        .await;
    services.stop().await;
    result
}

/// Creates topics and registers schemas, on a log without orders.
async fn prepare(args: &Args) -> anyhow::Result<()> {
    let applied =
        platform_client::create_topics(&args.stack.kafka, &args.stack.registry, 1).await?;
    let cluster = platform_client::cluster(&args.stack.kafka);
    let ends = tokio::task::spawn_blocking(move || {
        let topics = [Service::Orders, Service::Inventory, Service::Payments];
        topics
            .into_iter()
            .map(|service| topic_reader::ends(&cluster, service, Topic::Events))
            .collect::<Result<Vec<_>, _>>()
    });
    if ends.await??.iter().flatten().any(|ends| ends.high > 0) {
        let broker = &args.stack.kafka.bootstrap;
        bail!(
            "the log at {broker} has events already, and the demo needs a fresh stack; run `make demo`"
        );
    }
    fs::create_dir_all(&args.folder)
        .with_context(|| format!("folder {}", args.folder.display()))?;
    for old in [
        journal_path(&args.folder),
        report_path(&args.folder),
        services::log_path(&args.folder),
    ] {
        if old.exists() {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    print_step(
        "topics",
        &format!(
            "{} created, contracts registered",
            count(applied.created.len())
        ),
    );
    Ok(())
}

/// Places the baskets as orders and waits until all are final.
async fn load_baskets(
    args: &Args,
    file: &BasketFile,
    stop: &CancellationToken,
) -> anyhow::Result<LoadedBaskets> {
    let clients = api(args)?.connect();
    let pieces = fill_stock(file, &clients).await?;
    let loaded = load(args, file, &clients, stop, pieces).await?;
    let pool = platform_client::read_model(&args.stack.database, query::SCHEMA).await?;
    wait_until_final(&pool, loaded.counts.orders).await?;
    Ok(loaded)
}

/// Steers single orders into every ending.
async fn run_scenarios(args: &Args) -> anyhow::Result<ScenarioResults> {
    let cluster = Arc::new(platform_client::cluster(&args.stack.kafka));
    let runner = ScenarioRunner::new(api(args)?.connect(), sandbox(args)?, cluster);
    let began = Instant::now();
    let results = runner.run_all().await?;
    let endings = count(results.endings.len());
    print_step(
        "endings",
        &format!("{endings} played in {}", duration(began.elapsed())),
    );
    Ok(results)
}

/// Waits until all orders are final, runs the checks, and prints the result.
async fn check_and_report(
    args: &Args,
    loaded: LoadedBaskets,
    results: ScenarioResults,
) -> anyhow::Result<ExitCode> {
    let sources = Sources::open(&args.stack, &sandbox(args)?).await?;
    let LoadedBaskets {
        placed,
        counts,
        mut acknowledged,
        pieces,
    } = loaded;
    acknowledged.extend(results.acknowledged);
    wait_until_final(&sources.pool, counts.orders + results.endings.len()).await?;
    let expected = Expected {
        orders: Some(acknowledged),
        pieces: Some(pieces + results.pieces),
    };
    let (checks, log) = check::run_all(&sources, &expected, SAMPLE).await?;
    let endings = results.endings;
    let passed =
        checks.iter().all(|check| check.passed) && endings.iter().all(|ending| ending.passed);
    let orders = figures::by_status(&sources.pool).await?;
    let speed = Speed::of(&placed, &log);
    if args.json {
        let result = json!({
            "passed": passed,
            "orders": orders,
            "endings": endings,
            "speed": speed.json(),
            "checks": checks,
        });
        print_line(result.to_string())?;
    } else {
        print_line(format!("\nOrders\n{}", figures::table(&orders)))?;
        print_line(format!("\nEndings\n{}", scenarios::table(&endings)))?;
        print_line(format!("\nSpeed\n{speed}"))?;
        print_line(format!("\nChecks\n{}", check::table(&checks)))?;
        print_line(format!("\n{NEXT_STEPS}"))?;
    }
    Ok(terminal::exit_code(passed))
}

fn api(args: &Args) -> anyhow::Result<Api> {
    Ok(Api::at(platform_client::reachable(args.public.address)?))
}

fn sandbox(args: &Args) -> anyhow::Result<Sandbox> {
    Ok(Sandbox::at(platform_client::reachable(
        args.listen.sandbox,
    )?))
}

async fn fill_stock(file: &BasketFile, clients: &Clients) -> anyhow::Result<i64> {
    let stock = stock::products(file);
    let short = stock.iter().filter(|product| product.is_short()).count();
    let progress = Progress::new("stock", stock.len());
    let began = Instant::now();
    let products = count(stock.len());
    let pieces = stock::fill(stock, clients, &progress).await?;
    drop(progress);
    let (short, took) = (count(short), duration(began.elapsed()));
    print_step(
        "stock",
        &format!(
            "{} pieces of {products} products in {took}; too few of {short}",
            count(pieces)
        ),
    );
    Ok(pieces)
}

/// The result of loading the baskets.
struct LoadedBaskets {
    placed: PlacedOrders,
    counts: Counts,
    acknowledged: Vec<AcknowledgedOrder>,
    /// Pieces put into stock before.
    pieces: i64,
}

async fn load(
    args: &Args,
    file: &BasketFile,
    clients: &Clients,
    stop: &CancellationToken,
    pieces: i64,
) -> anyhow::Result<LoadedBaskets> {
    let journal = Arc::new(Journal::open(&journal_path(&args.folder), file)?);
    let progress = Arc::new(Progress::new("orders", file.baskets.len()));
    let settings = LoadSettings {
        concurrency: DEFAULT_CONCURRENCY,
        per_second: None,
        patience: TIMEOUT,
        probe_every: Some(VISIBILITY_PROBE_EVERY),
    };
    let placed =
        loader::place(&file.baskets, &journal, clients, &settings, &progress, stop).await?;
    drop(progress);
    let report = report_path(&args.folder);
    crate::report::write(&report, file, &journal.history())?;
    let counts = Counts::of(file, &journal);
    let orders = format!("{} acknowledged", count(counts.orders));
    let refused = format!(
        "{} lines refused, see {}",
        count(counts.refused_lines),
        report.display()
    );
    print_step("orders", &format!("{orders}; {refused}"));
    let acknowledged = journal
        .history()
        .acknowledged()
        .map(AcknowledgedOrder::from)
        .collect();
    Ok(LoadedBaskets {
        placed,
        counts,
        acknowledged,
        pieces,
    })
}

/// Waits until every order is final, for [`TIMEOUT`] at most; the checks report orders that are not.
async fn wait_until_final(pool: &PgPool, orders: usize) -> anyhow::Result<()> {
    let progress = Progress::new("final", orders);
    let began = Instant::now();
    loop {
        let open = usize::try_from(check::open_orders(pool).await?).unwrap_or_default();
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM orders")
            .fetch_one(pool)
            .await?;
        let final_orders = usize::try_from(known)
            .unwrap_or_default()
            .saturating_sub(open);
        progress.set_position(final_orders);
        if final_orders >= orders || began.elapsed() > TIMEOUT {
            drop(progress);
            print_step(
                "final",
                &format!("{} of {} orders", count(final_orders), count(orders)),
            );
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Prints a finished step to standard error; the result goes to standard output.
fn print_step(step: &str, what: &str) {
    eprintln!("  {step:<10} {what}");
}

fn journal_path(folder: &Path) -> PathBuf {
    folder.join("journal.jsonl")
}

fn report_path(folder: &Path) -> PathBuf {
    folder.join("report.csv")
}

const NEXT_STEPS: &str = r#"How to go on
  make up                     the stack and all services, left running; make down stops them
  127.0.0.1:8080              gRPC (with reflection and health) and REST
  http://127.0.0.1:9464       /health/ready, /metrics

  grpcurl -plaintext -d '{"statuses": ["ORDER_STATUS_DELIVERED"], "page_size": 3}' \
    127.0.0.1:8080 ordermesh.query.v1.QueryService/ListOrders
  curl 'http://127.0.0.1:8080/v1/orders?status=delivered'

  target/debug/ordermesh --help
                              place orders, watch and explain them, load your own file

The demo's stack is stopped now, its data is kept until the next demo. To look into the orders above:
  export ORDERMESH_STACK_DIR=.stack/demo
  compose/native/stack up && eval "$(compose/native/stack env)"
  target/debug/ordermesh order explain ORDER_ID
  compose/native/stack down"#;
