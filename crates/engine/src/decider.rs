//! The rule book of an aggregate, and what a rule book says besides events.

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

/// What a decision may know besides the state and the command.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The aggregate that decides.
    pub aggregate_id: &'a str,
    /// Events of the aggregate so far; 0 when it is unknown.
    pub version: u64,
    /// Unix milliseconds: max(append time of the command, the aggregate's last time). Never a sender's clock,
    /// never backwards.
    pub time_ms: i64,
    /// Highest id time (Unix milliseconds) of an aggregate of this partition that has left memory: an unknown id
    /// at or below it may have been known once. 0 when none has left.
    pub evicted_through_ms: i64,
}

/// The rule book of one kind of aggregate.
///
/// Everything here is synchronous, deterministic and free of effects: no clock, no randomness, no I/O. That is
/// what makes replay, simulation and audit possible: the same commands give the same events, byte for byte.
/// Effects are returned as values ([`Outstanding`]) and carried out elsewhere, after the events are durable.
///
/// A rule book is a value, so that the durations it works with come in with its construction.
pub trait Decider: Send + Sync + 'static {
    /// The records that the rule book speaks in.
    type Contract: Contract;
    /// A refusal of a *caller's* command. Commands from other services are never rejected: their refusal is an
    /// event, so that its reaction answers the asker.
    type Rejection: Clone + Debug + PartialEq;
    /// What the outside world is asked to do.
    type Effect: Clone + Debug + PartialEq + Send + Sync + 'static;

    /// Version of the rules and of the fold; raised when either changes its results.
    const RULES_VERSION: u32;

    /// The service that alone asks something of aggregates of this kind; `None` when clients do.
    ///
    /// What is asked by a service is never refused by its age, so an aggregate that has left memory must never be asked
    /// again: it leaves by the *asker's* time, which its messages carry. An asker that has come so far has read every
    /// answer that was written before.
    const ASKER: Option<Service> = None;

    /// Decides a command. A repeated command gives no events.
    ///
    /// # Errors
    ///
    /// The rejection that the caller gets; nothing is written then.
    fn decide(
        &self,
        state: &State<Self>,
        command: &Command<Self>,
        context: &Context<'_>,
    ) -> Result<Vec<Event<Self>>, Self::Rejection>;

    /// Folds an event into the state. Total: an event that does not fit leaves the state as it is.
    fn evolve(state: &mut State<Self>, event: &Event<Self>);

    /// The commands that an event of the aggregate `id` sends to other services; `state` is the one right after
    /// the event.
    fn react(state: &State<Self>, event: &Event<Self>, id: &str) -> Vec<Message>;

    /// The effects and timers that the aggregate `id` still waits for in this state. They are derived from the
    /// state alone and kept nowhere else.
    fn outstanding(state: &State<Self>, id: &str) -> Vec<Outstanding<Self>>;

    /// The answer to a caller whose command was accepted; `state` is the one after it.
    fn accepted(state: &State<Self>) -> Outcome<Self>;

    /// The answer to a caller whose command was refused.
    fn rejected(rejection: &Self::Rejection) -> Outcome<Self>;

    /// Whether the aggregate is over and may leave memory once the horizon has passed.
    fn finished(state: &State<Self>) -> bool;

    /// Whether `id` can name an aggregate of this kind; a record with another key is a dead letter.
    fn is_id(id: &str) -> bool;
}

/// Something that a state waits for.
#[derive(Debug)]
pub enum Outstanding<D: Decider + ?Sized> {
    /// Asks the outside world under an idempotency key; the answer comes back as a command.
    Effect {
        /// Aggregate id + kind + attempt. The attempt rises only by an event that records a definite no.
        key: String,
        /// What to do.
        effect: D::Effect,
        /// When it begins (Unix milliseconds); 0 for now.
        not_before_ms: i64,
    },
    /// Sends `command` to the aggregate itself at `due_ms` (Unix milliseconds). Whether it is stale by then is for
    /// the rule book to say.
    Timer {
        /// When.
        due_ms: i64,
        /// What to send.
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
