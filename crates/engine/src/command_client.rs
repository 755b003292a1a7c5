//! A client that sends a command and waits for its outcome.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use contracts::core::v1::Metadata;
use contracts::{Body as _, Contract, Topic};
use observability::Outage;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::codec::{Codec, describe};
use crate::effects::unix_ms;
use crate::headers;
use crate::log::kafka::{Sender, Tail};
use crate::log::{self, Cluster, Input, Partition, RecordMetadata, SendError};
use crate::send_span::SendSpan;

/// Sends commands of one contract and receives their outcomes; cheap to clone.
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
    /// The `reply_to` of every command; outcomes for other instances are skipped without decoding.
    instance: String,
    pending: Mutex<HashMap<String, oneshot::Sender<Input>>>,
    listening: AtomicBool,
    /// Why outcomes may not be received now; `None` while healthy.
    problem: Mutex<Option<String>>,
    iterations: AtomicU64,
}

/// Outcome of a command.
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

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command was not written, or it is unknown whether it was.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The outcome did not arrive in time. The command may not be durable yet, and may still be carried out.
    #[error("no outcome in time")]
    Deadline,
    /// This instance does not receive outcomes yet.
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
    /// A client that is not listening yet: see [`CommandClient::listen`].
    pub fn new(cluster: Arc<Cluster>, sender: Sender, codec: Codec) -> Self {
        let inner = Inner {
            cluster,
            sender,
            codec,
            instance: Uuid::now_v7().to_string(),
            pending: Mutex::default(),
            listening: AtomicBool::new(false),
            problem: Mutex::default(),
            iterations: AtomicU64::new(0),
        };
        Self {
            inner: Arc::new(inner),
            contract: PhantomData,
        }
    }

    /// Whether the client is listening to outcomes.
    pub fn is_ready(&self) -> bool {
        self.inner.listening.load(Ordering::Acquire)
    }

    /// Whether outcomes would be received now: the client reads the outcomes at their end.
    ///
    /// # Errors
    ///
    /// The reason, for readiness.
    pub fn health(&self) -> Result<(), String> {
        let problem = self.inner.problem.lock();
        match problem.clone() {
            Some(problem) => Err(problem),
            None if self.is_ready() => Ok(()),
            None => Err("not listening yet".to_owned()),
        }
    }

    /// Finished iterations of the listening thread; when the count does not advance, the thread is stuck.
    pub fn iterations(&self) -> u64 {
        self.inner.iterations.load(Ordering::Relaxed)
    }

    fn set_problem(&self, problem: Option<&str>) {
        let mut current = self.inner.problem.lock();
        if current.as_deref() != problem {
            *current = problem.map(str::to_owned);
        }
    }

    /// Number of calls that wait for an outcome.
    pub fn in_flight(&self) -> usize {
        self.inner.pending.lock().len()
    }

    /// Receives outcomes until `stopped`; runs on a dedicated thread.
    ///
    /// # Errors
    ///
    /// The log is damaged, or a setting is rejected.
    pub fn listen(&self, stopped: impl Fn() -> bool) -> Result<(), log::Error> {
        let mut outage = Outage::of(format!("{} outcomes", C::SERVICE));
        let mut tail = loop {
            match Tail::at_end(&self.inner.cluster, C::SERVICE, Topic::Outcomes) {
                Ok(tail) => break tail,
                Err(log::Error::Unavailable(_)) if stopped() => return Ok(()),
                Err(log::Error::Unavailable(reason)) => {
                    self.inner.iterations.fetch_add(1, Ordering::Relaxed);
                    self.set_problem(Some(&reason));
                    outage.failed(reason);
                }
                Err(error) => return Err(error),
            }
        };
        outage.answered();
        drop(outage);
        self.inner.listening.store(true, Ordering::Release);
        while !stopped() {
            self.inner.iterations.fetch_add(1, Ordering::Relaxed);
            self.set_problem(tail.problem());
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
            let pending = self.inner.pending.lock().remove(&*id);
            if let Some(pending) = pending {
                let _ = pending.send(input);
            }
        }
        Ok(())
    }

    /// Sends a command and returns when it is durable.
    ///
    /// # Errors
    ///
    /// The command was not written, or it is unknown whether it was.
    pub async fn send(&self, call: Call<C>) -> Result<RecordMetadata, Error> {
        let send_span = SendSpan::of_call(C::SERVICE, call.command.kind(), &call.aggregate_id);
        let payload = self.encode(&call, Uuid::now_v7().to_string(), "")?;
        let call_headers: Vec<_> = send_span.header().into_iter().collect();
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
    /// After [`Error::Deadline`] the command may still be carried out.
    pub async fn call(
        &self,
        call: Call<C>,
        deadline: Duration,
    ) -> Result<Answer<C::Outcome>, Error> {
        if !self.is_ready() {
            return Err(Error::NotReady);
        }
        let id = Uuid::now_v7().to_string();
        let send_span = SendSpan::of_call(C::SERVICE, call.command.kind(), &call.aggregate_id);
        let payload = self.encode(&call, id.clone(), &self.inner.instance)?;
        let call_headers: Vec<_> = send_span.header().into_iter().collect();
        let (pending, outcome) = oneshot::channel();
        self.inner.pending.lock().insert(id.clone(), pending);
        let _pending_call = PendingCall {
            inner: &self.inner,
            id,
        };
        let durable =
            self.inner
                .sender
                .send(C::SERVICE, &call.aggregate_id, &payload, &call_headers)?;
        let input = tokio::time::timeout(deadline, async {
            durable.await?;
            drop(send_span);
            outcome.await.map_err(|_| Error::Unreadable)
        })
        .await
        .map_err(|_| Error::Deadline)??;
        let (metadata, outcome) = self
            .inner
            .codec
            .decode::<C::OutcomeRecord>(C::SERVICE, Topic::Outcomes, &input)
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

/// A command to send; it continues the trace of the current span.
#[derive(Clone, Debug)]
pub struct Call<C: Contract> {
    /// Id of the target aggregate.
    pub aggregate_id: String,
    /// The command.
    pub command: C::Command,
    /// The caller, as recorded in the metadata.
    pub actor: String,
}

/// Removes a call that no longer waits for its outcome.
struct PendingCall<'a> {
    inner: &'a Inner,
    id: String,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.inner.pending.lock().remove(&self.id);
    }
}
