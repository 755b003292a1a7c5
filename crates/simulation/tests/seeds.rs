//! Many seeds run clean, strike every kind of fault, and fail without each safeguard.

use std::process::Command;

use simulation::{Safeguard, run};

/// Seeds that must run clean.
const SEEDS: u64 = 500;

/// For each safeguard a seed that fails without it.
const RECORDED: &str = include_str!("../seeds.txt");

#[test]
fn seeds_run_clean() {
    for seed in 1..=SEEDS {
        let run = run(seed, None, 40);
        assert!(
            run.violations.is_empty(),
            "seed {seed} failed (make sim SEED={seed}):\n{}\n{}",
            run.last_lines.join("\n"),
            run.violations.join("\n")
        );
    }
}

/// Points at which a worker may crash, be paused or get no answer.
const POINTS: [&str; 11] = [
    "Poll",
    "Committed",
    "Ends",
    "Read",
    "Begin",
    "Produced",
    "SendOffsets",
    "End",
    "Ended",
    "Retry",
    "Recreate",
];

/// Parts of the history lines of all other faults and their consequences.
const HISTORY_TEXTS: [&str; 34] = [
    "the request to end is Lost",
    "the request to end is ReplyLost",
    "the request to end is Late",
    "the request to end is Repeated",
    "broker: abort of",
    "broker: a delayed end of",
    "has expired",
    "has a new generation",
    "is removed from group",
    "compacted",
    "the broker is unavailable",
    "the broker is available again",
    "loses the connection of its Consumer",
    "loses the connection of its Producer",
    "loses the connection of its Lookups",
    "loses the connection of its Reader",
    "replaces its Consumer",
    "replaces its Producer",
    "replaces its Lookups",
    "replaces its Reader",
    // Rarely reached, so one occurrence of any kind is enough.
    "at Peek",
    "the leader of",
    "is killed",
    "is frozen",
    "leaves for good",
    "joins",
    "is started a second time",
    "the partners are unavailable",
    "last stable offset",
    "projector 0 crashes",
    "projector 0 loses its session",
    "projector 0 is fenced",
    "projector 1 owns the read model",
    "all requests are repeated after eviction",
];

#[test]
fn every_kind_of_fault_occurs() {
    let strikes = ["crashes at", "is paused at", "gets no answer at"];
    let at_points = strikes
        .iter()
        .flat_map(|strike| POINTS.iter().map(move |point| format!("{strike} {point}")));
    let mut missing: Vec<String> = at_points
        .chain(HISTORY_TEXTS.iter().map(|text| (*text).to_owned()))
        .collect();
    for seed in 1..=SEEDS {
        let run = run(seed, None, usize::MAX);
        missing.retain(|text| {
            let contains_text = |line: &String| {
                line.split_once(text.as_str())
                    .is_some_and(|(_, rest)| !rest.starts_with(char::is_alphabetic))
            };
            !run.last_lines.iter().any(contains_text)
        });
        if missing.is_empty() {
            return;
        }
    }
    panic!("missing from {SEEDS} seeds: {missing:?}");
}

#[test]
fn a_seed_gives_the_same_history_in_every_process() {
    for seed in [3, 23, 50, 76] {
        let (first, second) = (run(seed, None, 0), run(seed, None, 0));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        let other = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["--seed", &seed.to_string()])
            .output()
            .expect("sim is built");
        let stdout = String::from_utf8(other.stdout).expect("stdout is UTF-8");
        let digest = format!("digest {:016x}", first.digest);
        assert!(stdout.contains(&digest), "seed {seed} in another process");
    }
    assert_ne!(run(1, None, 0).digest, run(2, None, 0).digest);
}

#[test]
fn recorded_seeds_fail_without_their_safeguard() {
    let recorded: Vec<(Safeguard, u64)> = RECORDED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, seed) = line.split_once(' ').expect("a name and a seed");
            (
                name.parse().expect("the name of a safeguard"),
                seed.parse().expect("a seed"),
            )
        })
        .collect();
    for safeguard in Safeguard::ALL {
        let of_safeguard = recorded.iter().filter(|(name, _)| *name == safeguard);
        let mut seeds = 0;
        for (_, seed) in of_safeguard {
            seeds += 1;
            let without = run(*seed, Some(safeguard), 0);
            assert!(
                !without.violations.is_empty(),
                "seed {seed} runs clean without {safeguard}: make sim-ablate"
            );
            let with = run(*seed, None, 0);
            assert!(
                with.violations.is_empty(),
                "seed {seed}: {:?}",
                with.violations
            );
        }
        assert!(seeds > 0, "no seed is recorded for {safeguard}");
    }
}
