//! Reads that wait until the read model is far enough.

use std::time::Duration;

use chassis::grpc::Deadline;
use tokio::time::{Instant, sleep_until};
use tonic::{Extensions, Status};

use crate::progress::Hint;

/// How long a read waits for a caller that does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
/// How often the database is looked at for what another process applies.
const MIN_POLL: Duration = Duration::from_millis(10);
const MAX_POLL: Duration = Duration::from_millis(80);

/// When to stop to wait: when the caller does, or after a while.
pub fn deadline(extensions: &Extensions) -> Instant {
    let wait = extensions
        .get::<Deadline>()
        .map_or(DEFAULT_WAIT, |deadline| deadline.remaining());
    Instant::now() + wait
}

/// The pauses between the looks of a read that has not found what it waits for.
#[derive(Debug)]
pub struct Wait {
    hint: Hint,
    hinted: bool,
    target: i64,
    deadline: Instant,
    pause: Duration,
}

impl Wait {
    /// Waits until `deadline`. `hint` tells when the projector of this process has come to `target`; what another one
    /// applies is found by looking again and again. Take the hint before the first look.
    pub const fn new(hint: Hint, target: i64, deadline: Instant) -> Self {
        Self {
            hint,
            hinted: false,
            target,
            deadline,
            pause: MIN_POLL,
        }
    }

    /// Comes back when it is worth to look again.
    ///
    /// # Errors
    ///
    /// DEADLINE_EXCEEDED.
    #[allow(clippy::result_large_err)]
    pub async fn pause(&mut self) -> Result<(), Status> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(chassis::error::deadline());
        }
        let target = self.target;
        tokio::select! {
            // Told once: from then on only the clock says when to look.
            () = self.hint.reached(target), if !self.hinted => self.hinted = true,
            () = sleep_until(self.deadline.min(now + self.pause)) => self.pause = (self.pause * 2).min(MAX_POLL),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use contracts::Service;

    use super::*;
    use crate::progress::{Mark, Progress};

    const PATIENCE: Duration = Duration::from_millis(200);
    const MARK: Mark = Mark::Position(Service::Orders, 0);

    #[tokio::test]
    async fn what_is_never_found_ends_with_the_deadline() {
        let hint = Arc::new(Progress::default()).watch(MARK);
        let deadline = Instant::now() + PATIENCE;
        let mut wait = Wait::new(hint, 1, deadline);
        let mut looks = 0;
        let end = loop {
            looks += 1;
            if let Err(status) = wait.pause().await {
                break status;
            }
        };
        assert_eq!(end.code(), tonic::Code::DeadlineExceeded);
        assert!(Instant::now() >= deadline);
        assert!((2..=20).contains(&looks), "{looks} looks");
    }

    #[tokio::test]
    async fn a_hint_makes_it_look_at_once_and_only_once() {
        let progress = Arc::new(Progress::default());
        let mut wait = Wait::new(progress.watch(MARK), 7, Instant::now() + PATIENCE);
        progress.publish(&HashMap::from([(MARK, 7)]));
        wait.pause().await.unwrap();
        assert!(wait.hinted);
        assert_eq!(wait.pause, MIN_POLL, "the clock had no part in it");
        wait.pause().await.unwrap();
        assert!(wait.pause > MIN_POLL, "the hint had no part in it");
    }
}
