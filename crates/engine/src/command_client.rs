//! A caller's side: sends a command and waits for its outcome.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::core::v1::Metadata;
use contracts::{Body as _, Contract, Topic};
use observability::Outage;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::codec::{Codec, describe};
use crate::effects::unix_ms;
use crate::headers;
use crate::log::kafka::{Cluster, RecordMetadata, SendError, Sender, Tail};
use crate::log::{self, Input, Partition};
use crate::sending::Sending;

/// Sends commands of one contract and hears what became of them; cheap to clone.
pub struct CommandClient<C: Contract> {
    inner: Arc<Inner>,
    contract: PhantomData<C>,
}

impl<C: Contract> Clone for CommandClient<C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            contract: PhantomData,
        }
    }
}

struct Inner {
    cluster: Arc<Cluster>,
    sender: Sender,
    codec: Codec,
    /// Stands in every command; outcomes for others are passed over unread.
    instance: String,
    waiting: Mutex<HashMap<String, oneshot::Sender<Input>>>,
    listening: AtomicBool,
    /// Why outcomes may not be heard now.
    trouble: Mutex<Option<String>>,
    rounds: AtomicU64,
}

/// What became of a command.
#[derive(Clone, Debug)]
pub struct Answer<O> {
    /// The outcome.
    pub outcome: O,
    /// The aggregate's version after it.
    pub version: u64,
    /// Partition of the aggregate.
    pub partition: Partition,
    /// End of the partition's events when the command was decided.
    pub events_offset: i64,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command was not written, or nobody knows whether it was.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The command is durable, but its outcome has not come in time.
    #[error("no outcome in time")]
    Deadline,
    /// This instance does not hear outcomes yet.
    #[error("not listening to outcomes yet")]
    NotReady,
    /// The command breaks its field rules and was not sent.
    #[error("command is invalid: {0}")]
    Invalid(String),
    /// The outcome cannot be read.
    #[error("outcome cannot be read")]
    Unreadable,
}

impl<C: Contract> CommandClient<C> {
    /// A caller that is not listening yet: see [`CommandClient::listen`].
    pub fn new(cluster: Arc<Cluster>, sender: Sender, codec: Codec) -> Self {
        let inner = Inner {
            cluster,
            sender,
            codec,
            instance: Uuid::now_v7().to_string(),
            waiting: Mutex::default(),
            listening: AtomicBool::new(false),
            trouble: Mutex::default(),
            rounds: AtomicU64::new(0),
        };
        Self {
            inner: Arc::new(inner),
            contract: PhantomData,
        }
    }

    /// Whether outcomes are heard.
    pub fn is_ready(&self) -> bool {
        self.inner.listening.load(Ordering::Acquire)
    }

    /// Whether outcomes would be heard now: the tail of the outcomes stands at their end.
    ///
    /// # Errors
    ///
    /// Why not, for readiness.
    pub fn health(&self) -> Result<(), String> {
        let trouble = self.inner.trouble.lock().expect("no holder panics");
        match trouble.clone() {
            Some(trouble) => Err(trouble),
            None if self.is_ready() => Ok(()),
            None => Err("not listening yet".to_owned()),
        }
    }

    /// Rounds that the listening thread has finished; where this stands still, it waits for something that does not
    /// come.
    pub fn rounds(&self) -> u64 {
        self.inner.rounds.load(Ordering::Relaxed)
    }

    fn tell(&self, trouble: Option<&str>) {
        let mut told = self.inner.trouble.lock().expect("no holder panics");
        if told.as_deref() != trouble {
            *told = trouble.map(str::to_owned);
        }
    }

    /// Calls that wait for an outcome.
    pub fn in_flight(&self) -> usize {
        self.inner.waiting.lock().expect("no holder panics").len()
    }

    /// Hears outcomes until `stopped`; for a thread of its own.
    ///
    /// # Errors
    ///
    /// When the log is damaged or a setting is refused.
    pub fn listen(&self, stopped: impl Fn() -> bool) -> Result<(), log::Error> {
        let mut outage = Outage::of(format!("{} outcomes", C::SERVICE));
        let mut tail = loop {
            match Tail::at_end(&self.inner.cluster, C::SERVICE, Topic::Outcomes) {
                Ok(tail) => break tail,
                Err(log::Error::Unavailable(reason)) if !stopped() => {
                    self.inner.rounds.fetch_add(1, Ordering::Relaxed);
                    self.tell(Some(&reason));
                    outage.failed(reason);
                }
                Err(error) => return Err(error),
            }
        };
        outage.answered();
        drop(outage);
        self.inner.listening.store(true, Ordering::Release);
        while !stopped() {
            self.inner.rounds.fetch_add(1, Ordering::Relaxed);
            self.tell(tail.trouble());
            let Some(input) = tail.next(Duration::from_millis(100))? else {
                continue;
            };
            if input.header(headers::REPLY_TO) != Some(self.inner.instance.as_bytes()) {
                continue;
            }
            let id = input
                .key
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            let waiting = self
                .inner
                .waiting
                .lock()
                .expect("no holder panics")
                .remove(&*id);
            if let Some(waiting) = waiting {
                let _ = waiting.send(input);
            }
        }
        Ok(())
    }

    /// Sends a command and returns when it is durable.
    ///
    /// # Errors
    ///
    /// When it could not be written, or nobody knows.
    pub async fn send(&self, call: Call<C>) -> Result<RecordMetadata, Error> {
        let sending = Sending::of_call(C::SERVICE, call.command.kind(), &call.aggregate_id);
        let payload = self.encode(&call, Uuid::now_v7().to_string(), "")?;
        let call_headers: Vec<_> = sending.header().into_iter().collect();
        let durable =
            self.inner
                .sender
                .send(C::SERVICE, &call.aggregate_id, &payload, &call_headers)?;
        Ok(durable.await?)
    }

    /// Sends a command and waits for its outcome until `deadline`.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] says nothing about the command: it may still be carried out.
    pub async fn call(
        &self,
        call: Call<C>,
        deadline: Duration,
    ) -> Result<Answer<C::Outcome>, Error> {
        if !self.is_ready() {
            return Err(Error::NotReady);
        }
        let id = Uuid::now_v7().to_string();
        let sending = Sending::of_call(C::SERVICE, call.command.kind(), &call.aggregate_id);
        let payload = self.encode(&call, id.clone(), &self.inner.instance)?;
        let call_headers: Vec<_> = sending.header().into_iter().collect();
        let (waiting, outcome) = oneshot::channel();
        self.inner
            .waiting
            .lock()
            .expect("no holder panics")
            .insert(id.clone(), waiting);
        let _waits = Waits {
            inner: &self.inner,
            id,
        };
        let durable =
            self.inner
                .sender
                .send(C::SERVICE, &call.aggregate_id, &payload, &call_headers)?;
        let input = tokio::time::timeout(deadline, async {
            durable.await?;
            drop(sending);
            outcome.await.map_err(|_| Error::Unreadable)
        })
        .await
        .map_err(|_| Error::Deadline)??;
        let (metadata, outcome) = self
            .inner
            .codec
            .own::<C::OutcomeRecord>(C::SERVICE, Topic::Outcomes, &input)
            .map_err(|_| Error::Unreadable)?;
        Ok(Answer {
            outcome,
            version: metadata.aggregate_version,
            partition: input.partition,
            events_offset: metadata.events_offset,
        })
    }

    fn encode(&self, call: &Call<C>, id: String, reply_to: &str) -> Result<Vec<u8>, Error> {
        let metadata = Metadata {
            id,
            aggregate_id: call.aggregate_id.clone(),
            time_ms: unix_ms(),
            actor: call.actor.clone(),
            reply_to: reply_to.to_owned(),
            ..Metadata::default()
        };
        let mut violations = contracts::rules::field_violations(&metadata);
        violations.extend(call.command.violations());
        if !violations.is_empty() {
            return Err(Error::Invalid(describe(&violations)));
        }
        let record =
            <C::CommandRecord as contracts::Record>::new_record(metadata, call.command.clone());
        Ok(self
            .inner
            .codec
            .encode(C::SERVICE, Topic::Commands, &record))
    }
}

/// A command that a client sends; it goes on with the trace of the current span.
#[derive(Clone, Debug)]
pub struct Call<C: Contract> {
    /// Whom it is for.
    pub aggregate_id: String,
    /// What is asked.
    pub command: C::Command,
    /// Who asks.
    pub actor: String,
}

/// Forgets a call that nobody waits for any more.
struct Waits<'a> {
    inner: &'a Inner,
    id: String,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.inner
            .waiting
            .lock()
            .expect("no holder panics")
            .remove(&self.id);
    }
}
