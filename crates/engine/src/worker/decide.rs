//! One command: decided, folded, and turned into output records.

use std::panic::{AssertUnwindSafe, catch_unwind};

use contracts::core::v1::Metadata;
use contracts::{Body as _, Contract, Record as _, Topic};
use observability::TraceParent;
use uuid::Uuid;

use super::aggregate::Aggregate;
use super::partition::PartitionState;
use super::{Reject, WorkerContext};
use crate::codec::{Poison, Undecodable, describe, too_large};
use crate::log::{Header, Input, Output};
use crate::{Command, Context, Decider, Event, State, headers};

/// Result of a decided command, for metrics.
pub enum Decided {
    /// This many events.
    Events(usize),
    /// The rules rejected a caller's command.
    Rejected,
}

/// Decodes a command and checks its key and partition.
pub fn decode_command<D: Decider>(
    context: &WorkerContext<D>,
    input: &Input,
) -> Result<(Metadata, Command<D>), Undecodable> {
    let (metadata, command) = context.codec.command::<D::Contract>(input)?;
    let wrong_key = |message: String| {
        Undecodable::Poison(Poison {
            class: "wrong-key",
            message,
            schema_id: None,
        })
    };
    let key = input.key.as_deref().unwrap_or_default();
    if key != metadata.aggregate_id.as_bytes() {
        return Err(wrong_key("the key is not the aggregate's id".into()));
    }
    if input.headers_unreadable {
        return Err(wrong_key("its headers cannot be read".into()));
    }
    if !catch_unwind(|| D::is_id(&metadata.aggregate_id)).unwrap_or(false) {
        return Err(wrong_key("the key is no id of such an aggregate".into()));
    }
    let expected = context.partition_of(key);
    if expected != input.partition {
        return Err(wrong_key(format!(
            "the key belongs to partition {expected}"
        )));
    }
    Ok((metadata, command))
}

/// Decides one command against its aggregate, which is changed in place, and appends the output records.
///
/// On [`Reject::Reset`] the aggregate may be partly changed, and the caller must write nothing of the window. On
/// [`Reject::Poison`] nothing has changed.
pub fn decide<D: Decider>(
    context: &WorkerContext<D>,
    partition_state: &mut PartitionState<D>,
    input: &Input,
    metadata: &Metadata,
    command: &Command<D>,
    trace: Option<TraceParent>,
    outputs: &mut Vec<Output>,
) -> Result<Decided, Reject> {
    let id = metadata.aggregate_id.as_str();
    let known = partition_state.aggregates.get(id);
    let decision_context = Context {
        aggregate_id: id,
        version: known.map_or(0, |aggregate| aggregate.version),
        time_ms: input
            .time_ms
            .max(known.map_or(0, |aggregate| aggregate.time_ms)),
        evicted_through_ms: partition_state.evicted_through_ms,
    };
    let initial = State::<D>::default();
    let state = known.map_or(&initial, |aggregate| &aggregate.state);

    let decision = catch_unwind(AssertUnwindSafe(|| {
        context.rules.decide(state, command, &decision_context)
    }))
    .map_err(|_| Reject::Poison(panicked()))?;
    let call = CommandInput {
        input,
        metadata,
        time_ms: decision_context.time_ms,
        trace,
    };
    match decision {
        Ok(events) => {
            for event in &events {
                let violations = event.violations();
                if !violations.is_empty() {
                    return Err(Reject::Poison(Poison {
                        class: "invalid-event",
                        message: describe(&violations),
                        schema_id: None,
                    }));
                }
            }
            let count = events.len();
            if count > 0 {
                partition_state.mark_changed(id);
                let aggregate = partition_state.aggregates.entry(id.to_owned()).or_default();
                // A panic in the fold or the reactions may leave the aggregate partly changed: the worker drops the
                // window, and the command becomes a dead letter the next time.
                catch_unwind(AssertUnwindSafe(|| {
                    apply(context, &call, events, aggregate, outputs)
                }))
                .map_err(|_| Reject::Reset(panicked()))??;
            }
            if !metadata.reply_to.is_empty() {
                let aggregate = partition_state.aggregates.get(id);
                let outcome = D::accepted(aggregate.map_or(&initial, |aggregate| &aggregate.state));
                let version = aggregate.map_or(0, |aggregate| aggregate.version);
                outputs.push(outcome_record(
                    context,
                    &call,
                    version,
                    partition_state.events_end,
                    outcome,
                ));
            }
            Ok(Decided::Events(count))
        }
        Err(rejection) => {
            if !metadata.reply_to.is_empty() {
                let outcome = D::rejected(&rejection);
                outputs.push(outcome_record(
                    context,
                    &call,
                    decision_context.version,
                    partition_state.events_end,
                    outcome,
                ));
            }
            Ok(Decided::Rejected)
        }
    }
}

/// The command being decided.
struct CommandInput<'a> {
    input: &'a Input,
    metadata: &'a Metadata,
    time_ms: i64,
    /// Trace context for its records.
    trace: Option<TraceParent>,
}

impl CommandInput<'_> {
    fn headers(&self) -> Vec<Header> {
        self.trace
            .map(TraceParent::record_header)
            .into_iter()
            .collect()
    }

    fn correlation_id(&self) -> String {
        if self.metadata.correlation_id.is_empty() {
            self.metadata.id.clone()
        } else {
            self.metadata.correlation_id.clone()
        }
    }
}

fn apply<D: Decider>(
    context: &WorkerContext<D>,
    call: &CommandInput<'_>,
    events: Vec<Event<D>>,
    aggregate: &mut Aggregate<State<D>>,
    outputs: &mut Vec<Output>,
) -> Result<(), Reject> {
    let service = D::Contract::SERVICE;
    let id = call.metadata.aggregate_id.as_str();
    for (index, event) in events.into_iter().enumerate() {
        let event_id = derived_id(&call.metadata.id, index);
        D::evolve(&mut aggregate.state, &event);
        aggregate.version += 1;
        aggregate.time_ms = call.time_ms;
        aggregate.trace = call.trace.or(aggregate.trace);
        context
            .metrics
            .events
            .with_label_values(&[service.name(), event.kind()])
            .inc();
        let messages = D::react(&aggregate.state, &event, id);

        let metadata = Metadata {
            id: event_id.clone(),
            aggregate_id: id.to_owned(),
            aggregate_version: aggregate.version,
            time_ms: call.time_ms,
            causation_id: call.metadata.id.clone(),
            correlation_id: call.correlation_id(),
            actor: call.metadata.actor.clone(),
            rules_version: D::RULES_VERSION,
            ..Metadata::default()
        };
        let record = <D::Contract as Contract>::EventRecord::new_record(metadata, event);
        let mut event_headers = call.headers();
        event_headers.push((
            headers::SOURCE_OFFSET.to_owned(),
            call.input.offset.to_string().into_bytes(),
        ));
        outputs.push(size_checked(Output {
            service,
            topic: Topic::Events,
            partition: call.input.partition,
            key: Some(id.as_bytes().to_vec()),
            payload: Some(context.codec.encode(service, Topic::Events, &record)),
            headers: event_headers,
        })?);

        for (index, message) in messages.into_iter().enumerate() {
            let violations = message.violations();
            if !violations.is_empty() {
                return Err(Reject::Reset(Poison {
                    class: "invalid-message",
                    message: format!("{}: {}", message.kind(), describe(&violations)),
                    schema_id: None,
                }));
            }
            let metadata = Metadata {
                id: derived_id(&event_id, index),
                aggregate_id: message.aggregate_id.clone(),
                time_ms: call.time_ms,
                causation_id: event_id.clone(),
                correlation_id: call.correlation_id(),
                actor: service.name().to_owned(),
                rules_version: D::RULES_VERSION,
                ..Metadata::default()
            };
            let key = message.aggregate_id.clone().into_bytes();
            outputs.push(size_checked(Output {
                service: message.service(),
                topic: Topic::Commands,
                partition: context.partition_of(&key),
                key: Some(key),
                payload: Some(context.codec.encode_message(message, metadata)),
                headers: call.headers(),
            })?);
        }
    }
    Ok(())
}

fn outcome_record<D: Decider>(
    context: &WorkerContext<D>,
    call: &CommandInput<'_>,
    version: u64,
    events_end: i64,
    outcome: crate::Outcome<D>,
) -> Output {
    let service = D::Contract::SERVICE;
    let metadata = Metadata {
        id: derived_id(&call.metadata.id, usize::MAX),
        aggregate_id: call.metadata.aggregate_id.clone(),
        aggregate_version: version,
        time_ms: call.time_ms,
        causation_id: call.metadata.id.clone(),
        correlation_id: call.correlation_id(),
        actor: service.name().to_owned(),
        rules_version: D::RULES_VERSION,
        reply_to: call.metadata.reply_to.clone(),
        events_offset: events_end,
    };
    let record = <D::Contract as Contract>::OutcomeRecord::new_record(metadata, outcome);
    let mut outcome_headers = call.headers();
    outcome_headers.push((
        headers::REPLY_TO.to_owned(),
        call.metadata.reply_to.clone().into_bytes(),
    ));
    Output {
        service,
        topic: Topic::Outcomes,
        partition: call.input.partition,
        key: Some(call.metadata.id.clone().into_bytes()),
        payload: Some(context.codec.encode(service, Topic::Outcomes, &record)),
        headers: outcome_headers,
    }
}

/// UUIDv5(parent, index): the same command gives the same ids wherever and whenever it is decided.
fn derived_id(parent: &str, index: usize) -> String {
    let parent = Uuid::try_parse(parent).unwrap_or_default();
    Uuid::new_v5(&parent, index.to_string().as_bytes()).to_string()
}

/// Rejects an output that the log would never accept, so that it does not abort its window for ever.
fn size_checked(output: Output) -> Result<Output, Reject> {
    if output.payload.as_deref().is_some_and(too_large) {
        return Err(Reject::Reset(Poison {
            class: "output-too-large",
            message: format!(
                "a record for {}.{} is too large",
                output.service,
                output.topic.name()
            ),
            schema_id: None,
        }));
    }
    Ok(output)
}

pub fn panicked() -> Poison {
    Poison {
        class: "panic",
        message: "the rule book panicked".into(),
        schema_id: None,
    }
}
