//! Waits until the read model has reached a version or a position.

use std::time::Duration;

use chassis::grpc::Deadline;
use tokio::time::{Instant, sleep_until};
use tonic::{Extensions, Status};

use crate::progress::ProgressReceiver;

/// How long a read waits when the caller sets no deadline.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
/// Interval of polling the database for changes that another process applies.
const MIN_POLL: Duration = Duration::from_millis(10);
const MAX_POLL: Duration = Duration::from_millis(80);

/// The deadline of a wait: the caller's, or after [`DEFAULT_WAIT`].
pub fn deadline(extensions: &Extensions) -> Instant {
    let wait = extensions
        .get::<Deadline>()
        .map_or(DEFAULT_WAIT, |deadline| deadline.remaining());
    Instant::now() + wait
}

/// The pauses between the polls of a waiting read.
#[derive(Debug)]
pub struct Wait {
    receiver: ProgressReceiver,
    notified: bool,
    target: i64,
    deadline: Instant,
    poll_interval: Duration,
}

impl Wait {
    /// A wait until `deadline`. `receiver` is notified when the projector of this process reaches `target`; polling
    /// finds what other processes apply. Subscribe before the first read.
    pub const fn new(receiver: ProgressReceiver, target: i64, deadline: Instant) -> Self {
        Self {
            receiver,
            notified: false,
            target,
            deadline,
            poll_interval: MIN_POLL,
        }
    }

    /// Waits until the next poll of the database is due.
    ///
    /// # Errors
    ///
    /// DEADLINE_EXCEEDED.
    #[allow(clippy::result_large_err)]
    pub async fn next_poll(&mut self) -> Result<(), Status> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(chassis::error::deadline());
        }
        let target = self.target;
        tokio::select! {
            // One notification is enough: afterwards only the interval triggers a poll.
            () = self.receiver.reached(target), if !self.notified => self.notified = true,
            () = sleep_until(self.deadline.min(now + self.poll_interval)) => {
                self.poll_interval = (self.poll_interval * 2).min(MAX_POLL);
            }
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
    use crate::progress::{Progress, ProgressKey};

    const TIMEOUT: Duration = Duration::from_millis(200);
    const KEY: ProgressKey = ProgressKey::Position(Service::Orders, 0);

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline() {
        let receiver = Arc::new(Progress::default()).subscribe(KEY);
        let deadline = Instant::now() + TIMEOUT;
        let mut wait = Wait::new(receiver, 1, deadline);
        let mut polls = 0;
        let end = loop {
            polls += 1;
            if let Err(status) = wait.next_poll().await {
                break status;
            }
        };
        assert_eq!(end.code(), tonic::Code::DeadlineExceeded);
        assert!(Instant::now() >= deadline);
        assert!((2..=20).contains(&polls), "{polls} polls");
    }

    #[tokio::test]
    async fn a_notification_triggers_one_immediate_poll() {
        let progress = Arc::new(Progress::default());
        let mut wait = Wait::new(progress.subscribe(KEY), 7, Instant::now() + TIMEOUT);
        progress.publish(&HashMap::from([(KEY, 7)]));
        wait.next_poll().await.unwrap();
        assert!(wait.notified);
        assert_eq!(
            wait.poll_interval, MIN_POLL,
            "the interval did not trigger it"
        );
        wait.next_poll().await.unwrap();
        assert!(
            wait.poll_interval > MIN_POLL,
            "the notification did not trigger it"
        );
    }
}
