//! What keeps the platform right, one thing at a time, so that a run can do without it.

use std::fmt;
use std::str::FromStr;

use engine::log::simulated::DisabledSafeguard;
use engine::worker;

/// Something that can be switched off, in a simulation only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safeguard {
    /// Offsets are committed within the transaction.
    OffsetsInside,
    /// States are forgotten after an abort.
    ForgettingStates,
    /// A generation vouches for the offsets.
    Generation,
    /// Take-over reads the committed offset before it looks at the states.
    OffsetFirst,
    /// Take-over reads to the high watermark.
    HighWatermark,
    /// The next checkpoint writes replayed states.
    CheckpointingReplayed,
    /// What only a service asks about is forgotten by that service's time.
    AskersTime,
    /// Effects rest until the answers in the log have been read.
    AnswersFirst,
    /// After an unclear end the producer is made anew.
    UnclearEnd,
    /// An effect's key changes only by a definite no.
    EffectKey,
    /// The projector moves its positions only from where it expects them.
    PositionGuard,
    /// A client that has lost the broker for good is replaced.
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

    /// What the simulated log leaves out.
    pub(crate) const fn weakness(self) -> Option<DisabledSafeguard> {
        match self {
            Self::OffsetsInside => Some(DisabledSafeguard::OffsetsOutside),
            Self::Generation => Some(DisabledSafeguard::NobodyVouches),
            Self::OffsetFirst => Some(DisabledSafeguard::StateBeforeOffset),
            Self::HighWatermark => Some(DisabledSafeguard::OnlyToStable),
            Self::AnswersFirst => Some(DisabledSafeguard::AnswersUnread),
            Self::UnclearEnd => Some(DisabledSafeguard::UnclearKept),
            Self::ReplacingClients => Some(DisabledSafeguard::LostClientsKept),
            Self::ForgettingStates
            | Self::CheckpointingReplayed
            | Self::AskersTime
            | Self::EffectKey
            | Self::PositionGuard => None,
        }
    }

    /// What the worker leaves out.
    pub(crate) const fn of_worker(self) -> Option<worker::Safeguard> {
        match self {
            Self::ForgettingStates => Some(worker::Safeguard::ForgettingStates),
            Self::CheckpointingReplayed => Some(worker::Safeguard::CheckpointingReplayed),
            Self::AskersTime => Some(worker::Safeguard::AskersTime),
            Self::ReplacingClients => Some(worker::Safeguard::ReplacingClients),
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
            format!("no such protection; there are {}", names.join(", "))
        })
    }
}
