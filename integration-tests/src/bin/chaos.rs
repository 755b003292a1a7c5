//! `make chaos`: every fault at its long scale, in random order, with pauses, on one system under load; an audit after
//! each round.

#![allow(clippy::print_stdout, reason = "it prints its progress")]

use std::time::{Duration, Instant};

use clap::Parser;
use harness::chaos::faults::flash_sale::{Sale, sell};
use harness::chaos::faults::{self, Fault};
use harness::chaos::load::{DEFAULT_MIX, WorkloadMix};
use harness::chaos::{ChaosRig, Plan, Scale};

/// Pause between two faults, seconds.
const PAUSE: std::ops::Range<u64> = 2..12;
/// Stock of each product; enough for the longest run.
const PIECES: i64 = 50_000;
/// Twice as many orders as pieces.
const SALE: Sale = Sale {
    orders: 10_000,
    products: 50,
    pieces: 100,
    returns: false,
};
const SALE_RATE: u32 = 150;

/// Injects every fault repeatedly; exits with 0 when nothing was lost and nothing happened twice
#[derive(Parser)]
struct Args {
    /// Minutes to run, without the flash sales at the end
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Seed of the order of the faults, their victims and the load [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// Orders per second
    #[arg(long, default_value_t = 30)]
    rate: u32,
    /// Run only these faults, and no flash sales
    #[arg(long = "fault", value_parser = fault)]
    faults: Vec<Fault>,
    /// Run every variant of each fault, however long it takes
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
        scale: if args.whole { Scale::Full } else { Scale::Long },
        mix: WorkloadMix {
            pieces: PIECES,
            free_percent: 15,
            ..DEFAULT_MIX
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
    let mut rig = ChaosRig::new(plan);
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        rig.random.shuffle(&mut rotation);
        for fault in &rotation {
            if Instant::now() >= end {
                break;
            }
            let pause = Duration::from_secs(rig.random.u64(PAUSE));
            rig.hold_fault(pause);
            let at = began.elapsed().as_secs();
            (fault.strike)(&mut rig);
            println!(
                "{:02}:{:02}  {:<10}  {}; {}",
                at / 60,
                at % 60,
                fault.name,
                fault.what,
                rig.recovery_summary()
            );
        }
        println!("round {round}");
        rig.drain_and_audit();
        rig.load.set_rate(plan.rate);
    }
    rig.drain_and_audit();
    drop(rig);
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
