//! `ordermesh demo`: places real orders on a fresh stack, verifies them, and audits everything that was written.

mod event_tap;
mod figures;
mod order_times;
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
use audit::Report;
use chassis::config;
use contracts::rules::FINAL_ORDER_STATUSES;
use contracts::{Service, Topic};
use load::baskets::{BasketFile, REAL_BASKETS};
use load::journal::{self, Journal};
use load::loader::{self, LoadSettings, PlacedOrders};
use load::verify::{self, AcknowledgedOrder, Verification};
use load::{Counts, DEFAULT_CONCURRENCY};
use platform_client::topic_reader;
use platform_client::{Api, Clients, Sandbox, Stack};
use serde_json::json;
use sqlx::PgPool;
use terminal::progress::Progress;
use terminal::{Align, Table, count, duration, print_line};
use tokio_util::sync::CancellationToken;

use crate::BadInput;
use crate::system_audit::{self, SystemAudit, report_text};
use figures::Speed;
use scenarios::{ScenarioResults, ScenarioRunner};
use services::{Phase, Services};

const BASKETS_NAME: &str = "baskets.csv.gz";

const TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Waits again for orders that were not final within [`TIMEOUT`].
const VERIFY_PATIENCE: Duration = Duration::from_secs(10);
/// When every order is final, only the last messages and offsets may still be uncommitted.
const REST_PATIENCE: Duration = Duration::from_secs(30);
/// The time until the read model shows an order is measured for every n-th order.
const VISIBILITY_PROBE_EVERY: NonZeroUsize = NonZeroUsize::new(20).expect("it is not 0");
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

/// The times of the rule books, for the audit. The services of the demo take them from the environment as well, except
/// that orders wait five seconds for their payment in [`Phase::Endings`].
#[derive(clap::Parser)]
struct RuleBookTimes {
    #[command(flatten)]
    orders: orders::Config,
    #[command(flatten)]
    payments: payments::Config,
}

/// Runs the demo; stops the services that it has started.
///
/// # Errors
///
/// A part of the platform fails, or the stack is not fresh.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let times: RuleBookTimes =
        config::parse(["demo"]).map_err(|invalid| BadInput(invalid.message))?;
    let stop = platform_client::shutdown_signal()?;
    let mut file = BasketFile::parse(BASKETS_NAME, REAL_BASKETS)?;
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
    // The services are started again. A restart loses nothing: all state is in the log.
    let scenarios = async {
        let results = run_scenarios(&args).await?;
        let audit = SystemAudit {
            sources: system_audit::sources(&args.stack, &sandbox(&args)?),
            order_times: times.orders,
            payment_times: times.payments,
            stop: stop.clone(),
        };
        check_and_report(&args, loaded, results, &audit).await
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

/// Creates topics and registers schemas, and checks that the log has neither commands nor events. Removes the files of
/// an earlier demo.
async fn prepare(args: &Args) -> anyhow::Result<()> {
    let applied =
        platform_client::create_topics(&args.stack.kafka, &args.stack.registry, 1).await?;
    let cluster = platform_client::cluster(&args.stack.kafka);
    let ends = tokio::task::spawn_blocking(move || {
        Service::ALL
            .into_iter()
            .flat_map(|service| [(service, Topic::Commands), (service, Topic::Events)])
            .map(|(service, topic)| topic_reader::ends(&cluster, service, topic))
            .collect::<Result<Vec<_>, _>>()
    });
    if ends.await??.iter().flatten().any(|ends| ends.high > 0) {
        let broker = &args.stack.kafka.bootstrap;
        bail!(
            "the log at {broker} has commands or events already, and the demo needs a fresh stack; run `make demo`"
        );
    }
    fs::create_dir_all(&args.folder)
        .with_context(|| format!("folder {}", args.folder.display()))?;
    let (journal, report) = (journal_path(&args.folder), report_path(&args.folder));
    // Files of an earlier demo only: the folder is the user's choice.
    if journal.exists() {
        journal::history(&journal)?;
    }
    load::report::check(&report, Path::new(BASKETS_NAME), &journal)?;
    for old in [journal, report, services::log_path(&args.folder)] {
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
    fill_stock(file, &clients).await?;
    let loaded = place_baskets(args, file, &clients, stop).await?;
    let pool = platform_client::read_model(&args.stack.database, query::SCHEMA).await?;
    wait_until_final(&pool, loaded.acknowledged.len()).await?;
    Ok(loaded)
}

/// Runs one order to each ending.
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

/// Waits until all orders are final, verifies and audits, and prints the result.
async fn check_and_report(
    args: &Args,
    loaded: LoadedBaskets,
    results: ScenarioResults,
    audit: &SystemAudit,
) -> anyhow::Result<ExitCode> {
    let LoadedBaskets {
        placed,
        mut acknowledged,
    } = loaded;
    let ScenarioResults {
        endings,
        acknowledged: of_endings,
    } = results;
    acknowledged.extend(of_endings);
    let pool = platform_client::read_model(&args.stack.database, query::SCHEMA).await?;
    wait_until_final(&pool, acknowledged.len()).await?;
    let verification = verify_orders(args, &acknowledged).await?;
    let report = audit_at_rest(args, audit).await?;
    let orders = figures::by_status(&pool).await?;
    let speed = Speed::of(&placed, &order_times::read(&args.stack).await?);
    let passed = endings.iter().all(|ending| ending.passed)
        && verification.passed()
        && report.at_rest
        && report.is_clean();
    if args.json {
        let result = json!({
            "passed": passed,
            "orders": orders,
            "endings": endings,
            "speed": speed.json(),
            "verification": verification,
            "audit": report,
        });
        print_line(result.to_string())?;
    } else {
        print_line(format!("\nOrders\n{}", figures::table(&orders)))?;
        print_line(format!("\nEndings\n{}", scenarios::table(&endings)))?;
        print_line(format!("\nSpeed\n{speed}"))?;
        let mut table = Table::new([("", Align::Left), ("", Align::Right), ("", Align::Left)]);
        for row in verification.rows() {
            table.row(row);
        }
        print_line(format!("\nVerification\n{table}"))?;
        print_line(format!("\nAudit\n{}", report_text(&report)))?;
        print_line(format!("\n{NEXT_STEPS}"))?;
    }
    Ok(terminal::exit_code(passed))
}

/// Compares the acknowledged orders with what the API reports.
async fn verify_orders(
    args: &Args,
    acknowledged: &[AcknowledgedOrder],
) -> anyhow::Result<Verification> {
    let began = Instant::now();
    let progress = Progress::new("verified", acknowledged.len());
    let clients = api(args)?.connect();
    let verification = verify::verify(acknowledged, &clients, VERIFY_PATIENCE, &progress).await?;
    drop(progress);
    let (orders, took) = (count(acknowledged.len()), duration(began.elapsed()));
    print_step("verified", &format!("{orders} orders read in {took}"));
    Ok(verification)
}

/// Audits everything that was written, with the journal of the load.
async fn audit_at_rest(args: &Args, audit: &SystemAudit) -> anyhow::Result<Report> {
    let began = Instant::now();
    // Read before the cut, so that the cut has all that it refers to.
    let observations = journal::client_observations(&journal_path(&args.folder))?;
    let report = audit.run_at_rest(&observations, REST_PATIENCE).await?;
    let (records, took) = (count(report.records), duration(began.elapsed()));
    print_step("audited", &format!("{records} records in {took}"));
    Ok(report)
}

fn api(args: &Args) -> anyhow::Result<Api> {
    Ok(Api::at(platform_client::reachable(args.public.address)?))
}

fn sandbox(args: &Args) -> anyhow::Result<Sandbox> {
    Ok(Sandbox::at(platform_client::reachable(
        args.listen.sandbox,
    )?))
}

async fn fill_stock(file: &BasketFile, clients: &Clients) -> anyhow::Result<()> {
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
            "{} pieces of {products} products in {took}; {short} products short",
            count(pieces)
        ),
    );
    Ok(())
}

/// The result of loading the baskets.
struct LoadedBaskets {
    placed: PlacedOrders,
    acknowledged: Vec<AcknowledgedOrder>,
}

async fn place_baskets(
    args: &Args,
    file: &BasketFile,
    clients: &Clients,
    stop: &CancellationToken,
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
    load::report::write(&report, file, &journal.history())?;
    let counts = Counts::of(file, &journal);
    let orders = format!("{} acknowledged", count(counts.orders));
    let refused = format!(
        "{} lines refused, see {}",
        count(counts.refused_lines),
        report.display()
    );
    print_step("orders", &format!("{orders}; {refused}"));
    let acknowledged = verify::acknowledged_orders(file, &journal.history());
    Ok(LoadedBaskets {
        placed,
        acknowledged,
    })
}

/// Waits until this many orders are final, for [`TIMEOUT`] at most; the verification reports orders that are not.
async fn wait_until_final(pool: &PgPool, orders: usize) -> anyhow::Result<()> {
    let progress = Progress::new("final", orders);
    let began = Instant::now();
    loop {
        let final_orders: i64 =
            sqlx::query_scalar("SELECT count(*) FROM orders WHERE status = ANY($1)")
                .bind(FINAL_ORDER_STATUSES.map(|status| status as i16))
                .fetch_one(pool)
                .await?;
        let final_orders = usize::try_from(final_orders).unwrap_or_default();
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

const NEXT_STEPS: &str = r#"Next steps
  make up                     the stack and all services, left running; make down stops them
  127.0.0.1:8080              gRPC (with reflection and health) and REST
  http://127.0.0.1:9464       /health/ready, /metrics

  grpcurl -plaintext -d '{"statuses": ["ORDER_STATUS_DELIVERED"], "page_size": 3}' \
    127.0.0.1:8080 ordermesh.query.v1.QueryService/ListOrders
  curl 'http://127.0.0.1:8080/v1/orders?status=delivered'

  target/debug/ordermesh --help
                              place orders, watch and explain them, load your own file

`make demo` stops its stack, and keeps the data until the next demo. The stack uses the ports of `make up`: run
`make down` first. To read the orders above:
  (
    export ORDERMESH_STACK_DIR=.stack/demo
    compose/native/stack up && eval "$(compose/native/stack env)"
    target/debug/ordermesh order explain ORDER_ID
    compose/native/stack down
  )"#;
