//! The interface of a rule book: decisions, reactions, effects and timers of an aggregate.

use std::fmt::Debug;

use contracts::{Contract, Message, Service};

/// The commands of a rule book.
pub type Command<D> = <<D as Decider>::Contract as Contract>::Command;
/// The events of a rule book.
pub type Event<D> = <<D as Decider>::Contract as Contract>::Event;
/// The state of a rule book's aggregate.
pub type State<D> = <<D as Decider>::Contract as Contract>::State;
/// The outcomes of a rule book.
pub type Outcome<D> = <<D as Decider>::Contract as Contract>::Outcome;

/// Input of a decision besides the state and the command.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The aggregate that decides.
    pub aggregate_id: &'a str,
    /// Events of the aggregate so far; 0 when it is unknown.
    pub version: u64,
    /// Unix milliseconds: max(append time of the command, the aggregate's last time). Never a sender's clock,
    /// never backwards.
    pub time_ms: i64,
    /// Highest id time (Unix milliseconds) of an evicted aggregate of this partition: an unknown id at or below it may
    /// belong to an evicted aggregate. 0 when none was evicted.
    pub evicted_through_ms: i64,
}

/// The rule book of one kind of aggregate.
///
/// All methods are synchronous, deterministic and free of side effects: no clock, no randomness, no I/O. This makes
/// replay, simulation and audit possible: the same commands give the same events, byte for byte. Effects are returned
/// as values ([`Outstanding`]); the executor carries them out after the events are durable.
///
/// A rule book is a value: its configuration, such as durations, is set at construction.
pub trait Decider: Send + Sync + 'static {
    /// The record types of the rule book.
    type Contract: Contract;
    /// A refusal of a *caller's* command. Commands from other services are never rejected: their refusal is an event,
    /// whose reaction answers the sender.
    type Rejection: Clone + Debug + PartialEq;
    /// A call to a partner outside.
    type Effect: Clone + Debug + PartialEq + Send + Sync + 'static;

    /// Version of the rules and of the fold; raised when either changes its results.
    const RULES_VERSION: u32;

    /// The only service that sends commands to aggregates of this kind; `None` when clients send them too.
    ///
    /// Commands of a service are never rejected because of their age, so an evicted aggregate must never receive
    /// another one: it is evicted by the *asker's* time, which its messages carry. An asker at that time has read every
    /// answer that was written before.
    const ASKER: Option<Service> = None;

    /// Decides a command. A repeated command gives no events.
    ///
    /// # Errors
    ///
    /// The rejection for the caller; no event is written then.
    fn decide(
        &self,
        state: &State<Self>,
        command: &Command<Self>,
        context: &Context<'_>,
    ) -> Result<Vec<Event<Self>>, Self::Rejection>;

    /// Folds an event into the state. Total: an event that does not fit leaves the state as it is.
    fn evolve(state: &mut State<Self>, event: &Event<Self>);

    /// The commands that an event of the aggregate `id` sends to other services; `state` is the state right after the
    /// event.
    fn react(state: &State<Self>, event: &Event<Self>, id: &str) -> Vec<Message>;

    /// The effects and timers that the aggregate `id` waits for in this state. They are derived from the state alone
    /// and stored nowhere else.
    fn outstanding(state: &State<Self>, id: &str) -> Vec<Outstanding<Self>>;

    /// The outcome of an accepted command; `state` is the state after it.
    fn accepted(state: &State<Self>) -> Outcome<Self>;

    /// The outcome of a rejected command.
    fn rejected(rejection: &Self::Rejection) -> Outcome<Self>;

    /// Whether the aggregate is finished and may be evicted after the horizon.
    fn finished(state: &State<Self>) -> bool;

    /// Whether `id` is a valid id of this kind of aggregate; a record with another key is a dead letter.
    fn is_id(id: &str) -> bool;
}

/// An effect or a timer that a state waits for.
#[derive(Debug)]
pub enum Outstanding<D: Decider + ?Sized> {
    /// Calls a partner outside under an idempotency key; the answer returns as a command.
    Effect {
        /// Aggregate id + kind + attempt. The attempt rises only by an event that records a definite refusal.
        key: String,
        /// The call.
        effect: D::Effect,
        /// Earliest start (Unix milliseconds); 0 for now.
        not_before_ms: i64,
    },
    /// Sends `command` to the aggregate itself at `due_ms`. The rule book ignores it when it is stale by then.
    Timer {
        /// Due time, Unix milliseconds.
        due_ms: i64,
        /// The command.
        command: Command<D>,
    },
}

impl<D: Decider> Clone for Outstanding<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Effect {
                key,
                effect,
                not_before_ms,
            } => Self::Effect {
                key: key.clone(),
                effect: effect.clone(),
                not_before_ms: *not_before_ms,
            },
            Self::Timer { due_ms, command } => Self::Timer {
                due_ms: *due_ms,
                command: command.clone(),
            },
        }
    }
}

impl<D: Decider> PartialEq for Outstanding<D> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Effect {
                    key,
                    effect,
                    not_before_ms,
                },
                Self::Effect {
                    key: other_key,
                    effect: other_effect,
                    not_before_ms: other_not_before_ms,
                },
            ) => key == other_key && effect == other_effect && not_before_ms == other_not_before_ms,
            (
                Self::Timer { due_ms, command },
                Self::Timer {
                    due_ms: other_due_ms,
                    command: other_command,
                },
            ) => due_ms == other_due_ms && command == other_command,
            _ => false,
        }
    }
}
