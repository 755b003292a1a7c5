//! Notifies waiting reads of what the projector of this process has applied.

use std::collections::HashMap;
use std::sync::Arc;

use contracts::Service;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What a read can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProgressKey {
    /// The version of an aggregate.
    Version(Service, String),
    /// The position of a partition of a service's events.
    Position(Service, i32),
}

/// Versions and positions that reads wait for. The projector of another process may advance them without a
/// notification, so a waiting read also polls the database.
#[derive(Debug, Default)]
pub struct Progress {
    subscriptions: Mutex<HashMap<ProgressKey, watch::Sender<i64>>>,
}

impl Progress {
    /// Receives the values of a key that are published from now on. Subscribe *before* reading the database.
    pub fn subscribe(self: &Arc<Self>, key: ProgressKey) -> ProgressReceiver {
        let published = self
            .subscriptions
            .lock()
            .entry(key.clone())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe();
        ProgressReceiver {
            progress: Arc::clone(self),
            key,
            published,
        }
    }

    /// Publishes committed values.
    pub fn publish(&self, values: &HashMap<ProgressKey, i64>) {
        for (key, sender) in self.subscriptions.lock().iter() {
            if let Some(value) = values.get(key) {
                sender.send_replace(*value);
            }
        }
    }
}

/// Receives the published values of one key. The key is removed when its last receiver is dropped.
#[derive(Debug)]
pub struct ProgressReceiver {
    progress: Arc<Progress>,
    key: ProgressKey,
    published: watch::Receiver<i64>,
}

impl ProgressReceiver {
    /// Waits until the value is at least `value`.
    pub async fn reached(&mut self, value: i64) {
        // The sender is not dropped while it has a receiver.
        let _ = self
            .published
            .wait_for(|published| *published >= value)
            .await;
    }

    /// Waits until another value is published.
    pub async fn changed(&mut self) {
        let _ = self.published.changed().await;
    }
}

impl Drop for ProgressReceiver {
    fn drop(&mut self) {
        let mut subscriptions = self.progress.subscriptions.lock();
        // The receiver that is being dropped is still counted.
        if subscriptions
            .get(&self.key)
            .is_some_and(|sender| sender.receiver_count() == 1)
        {
            subscriptions.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_receiver_gets_the_values_published_after_it_subscribed() {
        let progress = Arc::new(Progress::default());
        let key = ProgressKey::Version(Service::Orders, "a".into());
        let mut receiver = progress.subscribe(key.clone());
        progress.publish(&HashMap::from([
            (key.clone(), 3),
            (ProgressKey::Position(Service::Orders, 0), 9),
        ]));
        receiver.changed().await;
        receiver.reached(3).await;
        let mut late = progress.subscribe(key.clone());
        tokio::select! {
            biased;
            () = late.changed() => panic!("it was published before"),
            () = std::future::ready(()) => {}
        }
        progress.publish(&HashMap::from([(key, 4)]));
        late.changed().await;
    }

    #[test]
    fn keys_without_receivers_are_removed() {
        let progress = Arc::new(Progress::default());
        let key = || ProgressKey::Position(Service::Orders, 1);
        let (one, other) = (progress.subscribe(key()), progress.subscribe(key()));
        drop(progress.subscribe(ProgressKey::Position(Service::Orders, 2)));
        drop(one);
        assert_eq!(progress.subscriptions.lock().len(), 1);
        drop(other);
        assert_eq!(progress.subscriptions.lock().len(), 0);
    }
}
