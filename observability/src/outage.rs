//! An outage of a part of the platform, logged as one line when it begins and one line when it ends.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Causes of one outage that are logged; further ones are logged at debug level, whatever they are.
const LOGGED_CAUSES: usize = 3;

/// A part that answers is still in its outage when it fails again within this time.
const QUIET: Duration = Duration::from_secs(1);

/// What a caller knows of a part that it calls again and again: whether it answers, and since when not.
///
/// A part that is away fails many calls a second. The first failure of each cause is a warning, repetitions are logged
/// at debug level. When the part has answered and not failed for a second, the end is logged with the length of the
/// outage.
#[derive(Debug)]
pub struct Outage {
    part: String,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    since: Instant,
    failed_at: Instant,
    /// Since when it has only answered.
    answered_at: Option<Instant>,
    failures: u64,
    causes: Vec<String>,
}

impl Outage {
    /// No outage of `part`, which is named in each line.
    pub fn of(part: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            current: None,
        }
    }

    /// A call of the part failed.
    pub fn failed(&mut self, cause: impl Display) {
        let cause = cause.to_string();
        let part = self.part.as_str();
        let Some(current) = &mut self.current else {
            tracing::warn!(part, cause, "outage begins");
            let now = Instant::now();
            self.current = Some(Current {
                since: now,
                failed_at: now,
                answered_at: None,
                failures: 1,
                causes: vec![cause],
            });
            return;
        };
        current.failures += 1;
        current.failed_at = Instant::now();
        current.answered_at = None;
        if current.causes.len() < LOGGED_CAUSES && !current.causes.contains(&cause) {
            tracing::warn!(part, cause, "outage has another cause");
            current.causes.push(cause);
        } else {
            tracing::debug!(part, cause, "outage goes on");
        }
    }

    /// A call of the part succeeded. Called again and again while the part answers.
    pub fn answered(&mut self) {
        if let Some(current) = &mut self.current {
            current.answered_at.get_or_insert_with(Instant::now);
            if current.failed_at.elapsed() >= QUIET {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        if let Some(current) = self.current.take()
            && let Some(answered_at) = current.answered_at
        {
            let seconds = answered_at.duration_since(current.since).as_secs_f64();
            tracing::info!(
                part = self.part,
                seconds = (seconds * 10.0).round() / 10.0,
                failures = current.failures,
                "outage is over"
            );
        }
    }
}

impl Drop for Outage {
    /// Who asks no more after an answer waits for no second one.
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lines.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_outage_is_one_line_for_each_cause_and_one_for_its_end() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || written.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut outage = Outage::of("log");
            outage.answered();
            for number in 0..1_000 {
                outage.failed("connection refused");
                outage.failed("all brokers are down");
                outage.failed(format!("timed out after {number} ms"));
            }
            // It fails again at once: the same outage.
            outage.answered();
            outage.failed("connection refused");
            outage.answered();
            drop(outage);
            let mut unanswered = Outage::of("never back");
            unanswered.failed("gone");
        });
        let bytes = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        let expected = [
            "outage begins part=\"log\" cause=\"connection refused\"",
            "outage has another cause part=\"log\" cause=\"all brokers are down\"",
            "outage has another cause part=\"log\" cause=\"timed out after 0 ms\"",
            "outage is over part=\"log\" seconds=0.0 failures=3001",
            "outage begins part=\"never back\" cause=\"gone\"",
        ];
        assert_eq!(text.lines().count(), expected.len(), "{text}");
        for (line, expected) in text.lines().zip(expected) {
            assert!(line.contains(expected), "{line}");
        }
    }
}
