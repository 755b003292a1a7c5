//! `ordermesh demo`: carries real orders through a fresh stack, and checks the result.

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
use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::baskets::BasketFile;
use crate::check::{self, Acknowledged, Promised, Sources};
use crate::journal::Journal;
use crate::loader::{self, Pace, Placed};
use crate::{CONCURRENCY, Counts};
use figures::Speed;
use platform_client::topic_reader;
use platform_client::{Api, Clients, Sandbox, Stack};
use scenarios::{Played, Stage};
use services::{Act, Services};
use terminal::progress::Progress;
use terminal::{count, duration, say};

/// 5,000 real baskets; `data/README.md` says where they are from.
pub const BASKETS: &[u8] = include_bytes!("../data/baskets.csv.gz");
const BASKETS_NAME: &str = "baskets.csv.gz";

const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Every so many orders, somebody looks whether it is visible.
const WATCH_EVERY: NonZeroUsize = NonZeroUsize::new(20).expect("it is not 0");
/// Orders whose fold is compared field by field.
const SAMPLE: u32 = 500;
/// As a shell reports a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// How large the demo is, and where its stack stands.
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

/// Runs the demo; the services that it starts end with it.
///
/// # Errors
///
/// Some part of the platform does not do what it should, or the stack is not fresh.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stop = platform_client::interruption()?;
    let mut file = BasketFile::parse(BASKETS_NAME, BASKETS)?;
    if let Some(baskets) = args.baskets {
        file.truncate(baskets.get());
    }
    let (baskets, lines) = (count(file.baskets.len()), count(file.line_count()));
    eprintln!("ordermesh demo: {baskets} real baskets, {lines} lines\n");
    prepare(&args).await?;
    let Some(loaded) = act(&args, Act::Baskets, carry(&args, &file, &stop), &stop).await? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    // The services are started anew: what they had decided is in the log.
    let finale = async {
        let played = play(&args).await?;
        conclude(&args, loaded, played).await
    };
    let ended = act(&args, Act::Endings, finale, &stop).await?;
    Ok(ended.unwrap_or_else(|| ExitCode::from(INTERRUPTED)))
}

/// Runs a part of the demo with services of its own; `None` when it was interrupted.
async fn act<T>(
    args: &Args,
    act: Act,
    part: impl Future<Output = anyhow::Result<T>>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<T>> {
    let mut services = Services::start(args, act)?;
    let ended = services
        .during(
            async {
                let ready = services::ready(args.admin.address).await?;
                let (ready, log) = (duration(ready), services::log_path(&args.folder));
                told(
                    "services",
                    &format!("ready after {ready}, log in {}", log.display()),
                );
                part.await
            },
            stop,
        )
        .await;
    services.stop().await;
    ended
}

/// Topics and contracts, on a log without orders.
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
    told(
        "topics",
        &format!(
            "{} created, contracts registered",
            count(applied.created.len())
        ),
    );
    Ok(())
}

/// The baskets become orders, until all of them are final.
async fn carry(args: &Args, file: &BasketFile, stop: &CancellationToken) -> anyhow::Result<Loaded> {
    let clients = api(args)?.connect();
    let pieces = put_into_stock(file, &clients).await?;
    let loaded = load(args, file, &clients, stop, pieces).await?;
    let pool = platform_client::read_model(&args.stack.database, query::SCHEMA).await?;
    settle(&pool, loaded.counts.orders).await?;
    Ok(loaded)
}

/// Single orders are steered into every ending.
async fn play(args: &Args) -> anyhow::Result<Played> {
    let cluster = Arc::new(platform_client::cluster(&args.stack.kafka));
    let stage = Stage::new(api(args)?.connect(), sandbox(args)?, cluster);
    let began = Instant::now();
    let played = stage.play().await?;
    let endings = count(played.endings.len());
    told(
        "endings",
        &format!("{endings} played in {}", duration(began.elapsed())),
    );
    Ok(played)
}

/// Everything is at rest: it is checked and shown.
async fn conclude(args: &Args, loaded: Loaded, played: Played) -> anyhow::Result<ExitCode> {
    let ground = Sources::open(&args.stack, &sandbox(args)?).await?;
    let Loaded {
        placed,
        counts,
        mut acknowledged,
        pieces,
    } = loaded;
    acknowledged.extend(played.acknowledged);
    settle(&ground.pool, counts.orders + played.endings.len()).await?;
    let promised = Promised {
        orders: Some(acknowledged),
        pieces: Some(pieces + played.pieces),
    };
    let (checks, log) = check::all(&ground, &promised, SAMPLE).await?;
    let endings = played.endings;
    let passed =
        checks.iter().all(|check| check.passed) && endings.iter().all(|ending| ending.passed);
    let orders = figures::by_status(&ground.pool).await?;
    let speed = Speed::of(&placed, &log);
    if args.json {
        let result = json!({
            "passed": passed,
            "orders": orders,
            "endings": endings,
            "speed": speed.json(),
            "checks": checks,
        });
        say(result.to_string())?;
    } else {
        say(format!("\nOrders\n{}", figures::table(&orders)))?;
        say(format!("\nEndings\n{}", scenarios::table(&endings)))?;
        say(format!("\nSpeed\n{speed}"))?;
        say(format!("\nChecks\n{}", check::table(&checks)))?;
        say(format!("\n{HOW_TO_GO_ON}"))?;
    }
    Ok(terminal::verdict(passed))
}

fn api(args: &Args) -> anyhow::Result<Api> {
    Ok(Api::at(platform_client::reachable(args.public.address)?))
}

fn sandbox(args: &Args) -> anyhow::Result<Sandbox> {
    Ok(Sandbox::at(platform_client::reachable(
        args.listen.sandbox,
    )?))
}

async fn put_into_stock(file: &BasketFile, clients: &Clients) -> anyhow::Result<i64> {
    let stock = stock::stock(file);
    let short = stock.iter().filter(|product| product.is_short()).count();
    let progress = Progress::new("stock", stock.len());
    let began = Instant::now();
    let products = count(stock.len());
    let pieces = stock::put_in(stock, clients, &progress).await?;
    drop(progress);
    let (short, took) = (count(short), duration(began.elapsed()));
    told(
        "stock",
        &format!(
            "{} pieces of {products} products in {took}; too few of {short}",
            count(pieces)
        ),
    );
    Ok(pieces)
}

/// What the loader did.
struct Loaded {
    placed: Placed,
    counts: Counts,
    acknowledged: Vec<Acknowledged>,
    /// Pieces that were put into stock before.
    pieces: i64,
}

async fn load(
    args: &Args,
    file: &BasketFile,
    clients: &Clients,
    stop: &CancellationToken,
    pieces: i64,
) -> anyhow::Result<Loaded> {
    let journal = Arc::new(Journal::open(&journal_path(&args.folder), file)?);
    let progress = Arc::new(Progress::new("orders", file.baskets.len()));
    let pace = Pace {
        concurrency: CONCURRENCY,
        per_second: None,
        patience: PATIENCE,
        watch_every: Some(WATCH_EVERY),
    };
    let placed = loader::place(&file.baskets, &journal, clients, &pace, &progress, stop).await?;
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
    told("orders", &format!("{orders}; {refused}"));
    let acknowledged = journal
        .history()
        .acknowledged()
        .map(Acknowledged::from)
        .collect();
    Ok(Loaded {
        placed,
        counts,
        acknowledged,
        pieces,
    })
}

/// Waits until every order is final, or for so long that something must be wrong; the checks tell then.
async fn settle(pool: &PgPool, orders: usize) -> anyhow::Result<()> {
    let progress = Progress::new("final", orders);
    let began = Instant::now();
    loop {
        let open = usize::try_from(check::not_final(pool).await?).unwrap_or_default();
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM orders")
            .fetch_one(pool)
            .await?;
        let ended = usize::try_from(known)
            .unwrap_or_default()
            .saturating_sub(open);
        progress.reach(ended);
        if ended >= orders || began.elapsed() > PATIENCE {
            drop(progress);
            told(
                "final",
                &format!("{} of {} orders", count(ended), count(orders)),
            );
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A line about a step that is done, beside the result.
fn told(step: &str, what: &str) {
    eprintln!("  {step:<10} {what}");
}

fn journal_path(folder: &Path) -> PathBuf {
    folder.join("journal.jsonl")
}

fn report_path(folder: &Path) -> PathBuf {
    folder.join("report.csv")
}

const HOW_TO_GO_ON: &str = r#"How to go on
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
