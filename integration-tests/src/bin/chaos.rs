//! `make chaos`: every fault in its long form, in random orders, with pauses, on one system under load; an audit after
//! each round.

#![allow(clippy::print_stdout, reason = "it tells how far it is")]

use std::time::{Duration, Instant};

use clap::Parser;
use harness::chaos::faults::flash_sale::{Sale, sell};
use harness::chaos::faults::{self, Fault};
use harness::chaos::load::{Mix, USUAL};
use harness::chaos::{ChaosRig, Plan, Scale};

/// Between two faults, seconds.
const PAUSE: std::ops::Range<u64> = 2..12;
/// Pieces for the longest run.
const PIECES: i64 = 50_000;
/// Ten thousand who want five thousand pieces.
const SALE: Sale = Sale {
    orders: 10_000,
    products: 50,
    pieces: 100,
    returns: false,
};
const SALE_RATE: u32 = 150;

/// Breaks everything, again and again; ends with 0 when nothing was lost and nothing happened twice.
#[derive(Parser)]
struct Args {
    /// How long, without the flash sales at the end
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Draws the order of the faults, their victims and the load [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Orders begun each second
    #[arg(long, default_value_t = 30)]
    rate: u32,
    /// Only these faults, and no flash sales at the end
    #[arg(long = "fault", value_parser = fault)]
    faults: Vec<Fault>,
    /// All there is of each fault, however long it takes
    #[arg(long)]
    whole: bool,
}

fn fault(name: &str) -> Result<Fault, String> {
    let known = faults::ALL.iter().find(|fault| fault.name == name);
    known.copied().ok_or_else(|| {
        let names: Vec<_> = faults::ALL.iter().map(|fault| fault.name).collect();
        format!("expected one of: {}", names.join(", "))
    })
}

fn main() {
    let args = Args::parse();
    let plan = Plan {
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        form: if args.whole {
            Scale::Whole
        } else {
            Scale::Long
        },
        mix: Mix {
            pieces: PIECES,
            free_percent: 15,
            ..USUAL
        },
        rate: args.rate,
        orders: None,
        declined_percent: 5,
    };
    let has_sales = args.faults.is_empty();
    let mut rotation = if args.faults.is_empty() {
        faults::ALL.to_vec()
    } else {
        args.faults
    };
    let began = Instant::now();
    let end = began + Duration::from_secs(args.minutes * 60);
    let mut ground = ChaosRig::new(plan);
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        ground.random.shuffle(&mut rotation);
        for fault in &rotation {
            if Instant::now() >= end {
                break;
            }
            let pause = Duration::from_secs(ground.random.u64(PAUSE));
            ground.lasts(pause);
            let at = began.elapsed().as_secs();
            (fault.strike)(&mut ground);
            println!(
                "{:02}:{:02}  {:<10}  {}; {}",
                at / 60,
                at % 60,
                fault.name,
                fault.what,
                ground.recovered()
            );
        }
        println!("round {round}");
        ground.rest();
        ground.load.rate(plan.rate);
    }
    ground.rest();
    drop(ground);
    if has_sales {
        flash_sales(plan);
    }
    println!(
        "nothing was lost, and nothing happened twice; seed {}",
        plan.seed
    );
}

fn flash_sales(plan: Plan) {
    let sale = Plan {
        rate: SALE_RATE,
        ..plan
    };
    sell(SALE, sale);
    let returns = Sale {
        returns: true,
        ..SALE
    };
    sell(returns, sale);
}
