//! How readers that wait learn at once what the projector of this process has applied.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use contracts::Service;
use tokio::sync::watch;

/// What a reader can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// The version of an aggregate.
    Version(Service, String),
    /// The position of a partition of a service's events.
    Position(Service, i32),
}

/// The marks that somebody waits for. Only a hint: a mark may be moved by another process, so whoever waits looks at
/// the database now and then as well.
#[derive(Debug, Default)]
pub struct Progress {
    awaited: Mutex<HashMap<Mark, watch::Sender<i64>>>,
}

impl Progress {
    /// A receiver that holds the highest value published from now on. Take it *before* looking at the database.
    pub fn watch(&self, mark: Mark) -> watch::Receiver<i64> {
        self.awaited()
            .entry(mark)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// Tells what was committed, and forgets the marks that nobody waits for any more.
    pub fn publish(&self, marks: &HashMap<Mark, i64>) {
        self.awaited().retain(|mark, sender| {
            if let Some(value) = marks.get(mark) {
                sender.send_replace(*value);
            }
            sender.receiver_count() > 0
        });
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<Mark, watch::Sender<i64>>> {
        // Every change of the map is a single step: a panic elsewhere leaves it whole.
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_is_published_after_it_began_to_watch() {
        let progress = Progress::default();
        let mark = Mark::Version(Service::Orders, "a".into());
        let receiver = progress.watch(mark.clone());
        progress.publish(&HashMap::from([
            (mark, 3),
            (Mark::Position(Service::Orders, 0), 9),
        ]));
        assert_eq!(*receiver.borrow(), 3);
    }

    #[test]
    fn marks_that_nobody_watches_are_forgotten() {
        let progress = Progress::default();
        let kept = progress.watch(Mark::Position(Service::Orders, 1));
        drop(progress.watch(Mark::Position(Service::Orders, 2)));
        progress.publish(&HashMap::new());
        assert_eq!(progress.awaited().len(), 1);
        drop(kept);
    }
}
