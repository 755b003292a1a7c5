//! Runs many seeds to find one that fails, or replays one seed.
#![allow(clippy::print_stdout, reason = "the command prints its result")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use simulation::{Safeguard, run};

/// Lines of the history that are shown for a failed seed.
const SHOWN_LINES: usize = 40;
/// Violations that are shown.
const MAX_SHOWN_VIOLATIONS: usize = 20;

#[derive(Parser)]
#[command(about = "Runs the platform on a simulated log, seed by seed")]
struct Args {
    /// Number of seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run only this seed, and print its history
    #[arg(long)]
    seed: Option<u64>,
    /// Disable this safeguard
    #[arg(long, value_name = "SAFEGUARD")]
    without: Option<Safeguard>,
    /// Find the first failing seed for each disabled safeguard, and print lines for seeds.txt
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
        for line in &run.last_lines {
            println!("{line}");
        }
        println!(
            "seed {seed}: {} lines, digest {:016x}",
            run.line_count, run.digest
        );
        return exit_code(&run.violations);
    }
    let started = Instant::now();
    for seed in args.from..args.from + args.seeds {
        let run = run(seed, args.without, SHOWN_LINES);
        if !run.violations.is_empty() {
            for line in &run.last_lines {
                println!("{line}");
            }
            println!("seed {seed} failed; print its history with: make sim SEED={seed}");
            return exit_code(&run.violations);
        }
    }
    let took = started.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = args.seeds as f64 / took;
    println!(
        "{} seeds ran clean in {took:.1} s ({rate:.1} seeds/s)",
        args.seeds
    );
    ExitCode::SUCCESS
}

fn ablate(args: &Args) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for safeguard in Safeguard::ALL {
        // A recorded seed may lie beyond the seeds that are searched.
        let mut seeds = (args.from..args.from + args.seeds).chain(recorded(safeguard));
        let fails = |seed: &u64| {
            let without = run(*seed, Some(safeguard), 0);
            !without.violations.is_empty() && run(*seed, None, 0).violations.is_empty()
        };
        if let Some(seed) = seeds.find(fails) {
            println!("{safeguard} {seed}");
        } else {
            println!("# {safeguard}: no seed fails without it");
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// The recorded seed of a safeguard.
fn recorded(safeguard: Safeguard) -> Option<u64> {
    let of_safeguard = |line: &str| line.strip_prefix(safeguard.name())?.trim().parse().ok();
    include_str!("../seeds.txt").lines().find_map(of_safeguard)
}

fn exit_code(violations: &[String]) -> ExitCode {
    for violation in violations.iter().take(MAX_SHOWN_VIOLATIONS) {
        println!("violated: {violation}");
    }
    if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
