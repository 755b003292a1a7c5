//! Runs seeds: many, to find one that fails, or one, to see what happens in it.
#![allow(clippy::print_stdout, reason = "it is what the command is for")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use simulation::{Safeguard, run};

/// Lines of a failed seed's history that are shown.
const LAST: usize = 40;
/// Violations that are shown.
const MOST: usize = 20;

#[derive(Parser)]
#[command(about = "Runs the whole platform on a simulated log, seed by seed")]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs this one only, and prints its history
    #[arg(long)]
    seed: Option<u64>,
    /// Does without this protection
    #[arg(long, value_name = "PROTECTION")]
    without: Option<Safeguard>,
    /// Searches for each protection the first seed that fails without it, and prints them as they are recorded
    #[arg(long, conflicts_with_all = ["seed", "without"])]
    ablate: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.ablate {
        return ablate(&args);
    }
    if let Some(seed) = args.seed {
        let run = run(seed, args.without, usize::MAX);
        for line in &run.last {
            println!("{line}");
        }
        println!(
            "seed {seed}: {} lines, digest {:016x}",
            run.lines, run.digest
        );
        return ended(&run.violations);
    }
    let begun = Instant::now();
    for seed in args.from..args.from + args.seeds {
        let run = run(seed, args.without, LAST);
        if !run.violations.is_empty() {
            for line in &run.last {
                println!("{line}");
            }
            println!("seed {seed} has failed; the whole history: make sim SEED={seed}");
            return ended(&run.violations);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = args.seeds as f64 / took;
    println!(
        "{} seeds ran clean in {took:.1} s, {rate:.1} a second",
        args.seeds
    );
    ExitCode::SUCCESS
}

fn ablate(args: &Args) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for protection in Safeguard::ALL {
        let mut seeds = args.from..args.from + args.seeds;
        let fails = |seed: &u64| {
            let without = run(*seed, Some(protection), 0);
            !without.violations.is_empty() && run(*seed, None, 0).violations.is_empty()
        };
        if let Some(seed) = seeds.find(fails) {
            println!("{protection} {seed}");
        } else {
            println!("# {protection}: no seed fails without it");
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn ended(violations: &[String]) -> ExitCode {
    for violation in violations.iter().take(MOST) {
        println!("violated: {violation}");
    }
    if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
