//! How readers that wait learn at once what the projector of this process has applied.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// What is published of a mark from now on. Take it *before* looking at the database.
    pub fn watch(self: &Arc<Self>, mark: Mark) -> Hint {
        let published = self
            .awaited()
            .entry(mark.clone())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe();
        Hint {
            progress: Arc::clone(self),
            mark,
            published,
        }
    }

    /// Tells what was committed.
    pub fn publish(&self, marks: &HashMap<Mark, i64>) {
        for (mark, sender) in self.awaited().iter() {
            if let Some(value) = marks.get(mark) {
                sender.send_replace(*value);
            }
        }
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<Mark, watch::Sender<i64>>> {
        // Every change of the map is a single step: a panic elsewhere leaves it whole.
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears what is published of one mark; when the last one is dropped, the mark is forgotten.
#[derive(Debug)]
pub struct Hint {
    progress: Arc<Progress>,
    mark: Mark,
    published: watch::Receiver<i64>,
}

impl Hint {
    /// Waits until the mark has come to a value.
    pub async fn reached(&mut self, value: i64) {
        // The mark is not forgotten while somebody waits for it.
        let _ = self
            .published
            .wait_for(|published| *published >= value)
            .await;
    }

    /// Waits until the mark moves again.
    pub async fn moved(&mut self) {
        let _ = self.published.changed().await;
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        let mut awaited = self.progress.awaited();
        // This one still counts.
        if awaited
            .get(&self.mark)
            .is_some_and(|sender| sender.receiver_count() == 1)
        {
            awaited.remove(&self.mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_hears_what_is_published_after_it_began_to_watch() {
        let progress = Arc::new(Progress::default());
        let mark = Mark::Version(Service::Orders, "a".into());
        let mut hint = progress.watch(mark.clone());
        progress.publish(&HashMap::from([
            (mark.clone(), 3),
            (Mark::Position(Service::Orders, 0), 9),
        ]));
        hint.moved().await;
        hint.reached(3).await;
        let mut late = progress.watch(mark.clone());
        tokio::select! {
            biased;
            () = late.moved() => panic!("it was published before"),
            () = std::future::ready(()) => {}
        }
        progress.publish(&HashMap::from([(mark, 4)]));
        late.moved().await;
    }

    #[test]
    fn marks_that_nobody_watches_are_forgotten() {
        let progress = Arc::new(Progress::default());
        let mark = || Mark::Position(Service::Orders, 1);
        let (one, other) = (progress.watch(mark()), progress.watch(mark()));
        drop(progress.watch(Mark::Position(Service::Orders, 2)));
        drop(one);
        assert_eq!(progress.awaited().len(), 1);
        drop(other);
        assert_eq!(progress.awaited().len(), 0);
    }
}
