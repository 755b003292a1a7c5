//! Whether the broker answers, for readiness: a worker without work would not notice that it is away.

use std::time::Duration;

use contracts::Topic;

use super::{Error, Worker};
use crate::Decider;
use crate::effects::Agenda;
use crate::log::{Log, Partition};

/// Between looks at a broker that does not answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Any partition will do.
const SOME: Partition = 0;

/// What was heard of the broker last.
#[derive(Default)]
pub struct Connection {
    /// A connection was lost: whether anybody is there has to be seen.
    look_at: Option<Duration>,
}

impl Connection {
    /// Somebody has to look. A lost connection alone is no news: brokers close idle ones.
    pub fn lost(&mut self, now: Duration) {
        self.look_at.get_or_insert(now);
    }
}

impl<D: Decider, L: Log, A: Agenda<D>> Worker<D, L, A> {
    /// Looks, if there is reason to, until somebody answers.
    pub(super) fn look_for_broker(&mut self) -> Result<(), Error> {
        if self
            .connection
            .look_at
            .is_none_or(|look_at| look_at > self.log.now())
        {
            return Ok(());
        }
        match self.log.ends(Topic::Commands, SOME) {
            Ok(_) => {
                self.connection.look_at = None;
                self.status.log_available();
                Ok(())
            }
            Err(error) => {
                self.connection.look_at = Some(self.log.now() + LOOK_EVERY);
                self.trouble(error)
            }
        }
    }
}
