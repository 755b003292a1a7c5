//! Logging of outages: one line when an outage of a component begins and one when it ends.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Distinct causes of one outage that are logged as warnings; further ones are logged at debug level.
const LOGGED_CAUSES: usize = 3;

/// An outage ends when no call has failed for this time.
const QUIET: Duration = Duration::from_secs(1);

/// The outage state of a component that a caller calls repeatedly.
///
/// A component that is down fails many calls a second. The first failure of each cause is logged as a warning,
/// repetitions at debug level. When the component has answered and not failed for a second, the end is logged with the
/// length of the outage.
#[derive(Debug)]
pub struct Outage {
    part: String,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    since: Instant,
    failed_at: Instant,
    /// The first answer since the last failure.
    answered_at: Option<Instant>,
    failures: u64,
    causes: Vec<String>,
}

impl Outage {
    /// A tracker without an outage; every line names `part`.
    pub fn of(part: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            current: None,
        }
    }

    /// Records a failed call.
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
            tracing::debug!(part, cause, "outage continues");
        }
    }

    /// Records a successful call. Must be called for every success, so that the end of an outage is noticed.
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
    /// Logs the end of an outage after an answer, because no further call will follow.
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut lines = self.0.lock();
            lines.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_outage_logs_each_cause_once_and_its_end() {
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
            // A failure soon after an answer belongs to the same outage.
            outage.answered();
            outage.failed("connection refused");
            outage.answered();
            drop(outage);
            let mut unanswered = Outage::of("never back");
            unanswered.failed("gone");
        });
        let bytes = lines.0.lock();
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
