//! Some seeds of every kind, each with its troubles; and that they would show what is missing.

use std::process::Command;

use simulation::{Safeguard, run};

/// Seeds that must run clean.
const SEEDS: u64 = 500;

/// For each protection a seed that fails without it.
const RECORDED: &str = include_str!("../seeds.txt");

#[test]
fn seeds_run_clean() {
    for seed in 1..=SEEDS {
        let run = run(seed, None, 40);
        assert!(
            run.violations.is_empty(),
            "seed {seed} has failed (make sim SEED={seed}):\n{}\n{}",
            run.last.join("\n"),
            run.violations.join("\n")
        );
    }
}

/// Where a worker may crash, be held up or get no answer.
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
    "Again",
    "Recreate",
];

/// What else happens, as the history tells it.
const TROUBLES: [&str; 34] = [
    "the request to end is Lost",
    "the request to end is ReplyLost",
    "the request to end is Late",
    "the request to end is Repeated",
    "broker: abort of",
    "broker: a late end of",
    "has expired",
    "has a new generation",
    "goes on without",
    "compacted",
    "the broker is away",
    "the broker is back",
    "loses the broker with its Consumer",
    "loses the broker with its Producer",
    "loses the broker with its Lookups",
    "loses the broker with its Reader",
    "replaces its Consumer",
    "replaces its Producer",
    "replaces its Lookups",
    "replaces its Reader",
    // Seldom reached: once somewhere has to do.
    "at Peek",
    "the leader of",
    "is killed",
    "is frozen",
    "leaves for good",
    "joins",
    "is started a second time",
    "the partners are out",
    "stable to",
    "projector 0 crashes",
    "projector 0 is cut off",
    "projector 0 is fenced",
    "projector 1 owns the read model",
    "long after",
];

#[test]
fn everything_that_can_go_wrong_does() {
    let struck = ["crashes at", "is held up at", "gets no answer at"];
    let at_points = struck
        .iter()
        .flat_map(|what| POINTS.iter().map(move |point| format!("{what} {point}")));
    let mut missing: Vec<String> = at_points
        .chain(TROUBLES.iter().map(|trouble| (*trouble).to_owned()))
        .collect();
    for seed in 1..=SEEDS {
        let run = run(seed, None, usize::MAX);
        missing.retain(|what| {
            let is_end = |line: &String| {
                line.split_once(what.as_str())
                    .is_some_and(|(_, rest)| !rest.starts_with(char::is_alphabetic))
            };
            !run.last.iter().any(is_end)
        });
        if missing.is_empty() {
            return;
        }
    }
    panic!("never in {SEEDS} seeds: {missing:?}");
}

#[test]
fn the_same_seed_is_the_same_history_in_every_process() {
    for seed in [3, 23, 50, 76] {
        let (first, second) = (run(seed, None, 0), run(seed, None, 0));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        let other = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["--seed", &seed.to_string()])
            .output()
            .expect("it is built");
        let said = String::from_utf8(other.stdout).expect("it is text");
        let digest = format!("digest {:016x}", first.digest);
        assert!(said.contains(&digest), "seed {seed} in another process");
    }
    assert_ne!(run(1, None, 0).digest, run(2, None, 0).digest);
}

#[test]
fn without_any_protection_a_seed_fails() {
    let recorded: Vec<(Safeguard, u64)> = RECORDED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, seed) = line.split_once(' ').expect("a name and a seed");
            (
                name.parse().expect("the name of a protection"),
                seed.parse().expect("a seed"),
            )
        })
        .collect();
    for protection in Safeguard::ALL {
        let of_it = recorded.iter().filter(|(one, _)| *one == protection);
        let mut seeds = 0;
        for (_, seed) in of_it {
            seeds += 1;
            let without = run(*seed, Some(protection), 0);
            assert!(
                !without.violations.is_empty(),
                "seed {seed} does not miss {protection}: make sim-ablate"
            );
            let with = run(*seed, None, 0);
            assert!(
                with.violations.is_empty(),
                "seed {seed}: {:?}",
                with.violations
            );
        }
        assert!(seeds > 0, "no seed is recorded for {protection}");
    }
}
