//! The safeguards that a run can disable, one at a time.

use std::fmt;
use std::str::FromStr;

use engine::log::simulated::LogDefect;
use engine::worker;

/// A safeguard that can be disabled, in a simulation only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safeguard {
    /// Offsets are committed within the transaction.
    OffsetsInside,
    /// The worker drops its states after an abort.
    ForgettingStates,
    /// The group accepts offsets only from its current generation.
    Generation,
    /// Take-over reads the committed offset before the ends of states and events.
    OffsetFirst,
    /// Take-over reads to the high watermark.
    HighWatermark,
    /// The next checkpoint writes replayed states.
    CheckpointingReplayed,
    /// Payments and shipments are evicted by the orders service's clock, which its messages carry.
    AskersTime,
    /// Effects start only after the answers in the log have been read.
    AnswersFirst,
    /// The producer is replaced after a transaction with an unclear end.
    UnclearEnd,
    /// The key of an effect changes only after a definite refusal.
    EffectKey,
    /// The projector advances a position only from its expected value.
    PositionGuard,
    /// A client that has lost its connection for good is replaced.
    ReplacingClients,
}

impl Safeguard {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::OffsetsInside,
        Self::ForgettingStates,
        Self::Generation,
        Self::OffsetFirst,
        Self::HighWatermark,
        Self::CheckpointingReplayed,
        Self::AskersTime,
        Self::AnswersFirst,
        Self::UnclearEnd,
        Self::EffectKey,
        Self::PositionGuard,
        Self::ReplacingClients,
    ];

    /// Its name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OffsetsInside => "offsets-inside",
            Self::ForgettingStates => "forgetting-states",
            Self::Generation => "generation",
            Self::OffsetFirst => "offset-first",
            Self::HighWatermark => "high-watermark",
            Self::CheckpointingReplayed => "checkpointing-replayed",
            Self::AskersTime => "askers-time",
            Self::AnswersFirst => "answers-first",
            Self::UnclearEnd => "unclear-end",
            Self::EffectKey => "effect-key",
            Self::PositionGuard => "position-guard",
            Self::ReplacingClients => "replacing-clients",
        }
    }

    /// The equivalent setting of the simulated log, if there is one.
    pub(crate) const fn disabled_in_log(self) -> Option<LogDefect> {
        match self {
            Self::OffsetsInside => Some(LogDefect::OffsetsOutsideTransaction),
            Self::Generation => Some(LogDefect::OffsetsWithoutGeneration),
            Self::OffsetFirst => Some(LogDefect::StateBeforeOffset),
            Self::HighWatermark => Some(LogDefect::ReadToStableEnd),
            Self::AnswersFirst => Some(LogDefect::AnswersUnread),
            Self::UnclearEnd => Some(LogDefect::UnclearProducerKept),
            Self::ReplacingClients => Some(LogDefect::DisconnectedClientsKept),
            Self::ForgettingStates
            | Self::CheckpointingReplayed
            | Self::AskersTime
            | Self::EffectKey
            | Self::PositionGuard => None,
        }
    }

    /// The equivalent setting of the worker, if there is one.
    pub(crate) const fn disabled_in_worker(self) -> Option<worker::WorkerSafeguard> {
        match self {
            Self::ForgettingStates => Some(worker::WorkerSafeguard::ForgettingStates),
            Self::CheckpointingReplayed => Some(worker::WorkerSafeguard::CheckpointingReplayed),
            Self::AskersTime => Some(worker::WorkerSafeguard::AskersTime),
            Self::ReplacingClients => Some(worker::WorkerSafeguard::ReplacingClients),
            _ => None,
        }
    }
}

impl fmt::Display for Safeguard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Safeguard {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|one| one.name()).collect();
            format!("unknown safeguard; known ones: {}", names.join(", "))
        })
    }
}
