//! What the sandbox can be told: where its ledgers lie, and how its partners behave.

use std::path::PathBuf;

use clap::Args;
use contracts::sandbox::v1::Behaviour as BehaviourMessage;

/// The environment variables of the sandbox.
pub mod env {
    /// Folder of the ledgers.
    pub const LEDGER: &str = "ORDERMESH_SANDBOX_LEDGER";
    /// Percent of charges that are declined.
    pub const DECLINE_PERCENT: &str = "ORDERMESH_SANDBOX_DECLINE_PERCENT";
    /// Percent of bookings that are refused.
    pub const REFUSE_PERCENT: &str = "ORDERMESH_SANDBOX_REFUSE_PERCENT";
    /// Seed of both choices.
    pub const SEED: &str = "ORDERMESH_SANDBOX_SEED";
    /// From booking to delivery, milliseconds.
    pub const DELIVERY_MS: &str = "ORDERMESH_SANDBOX_DELIVERY_MS";
}

// The limits of the contract's `Behaviour`.
const PERCENT_MAX: i64 = 100;
const DELIVERY_MS_MAX: i64 = 3_600_000;

/// The sandbox's configuration.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the sandbox's ledgers.
    #[arg(
        id = "sandbox-ledger",
        long,
        value_name = "FOLDER",
        env = env::LEDGER,
        default_value = ".stack/sandbox"
    )]
    pub ledger: PathBuf,

    /// How the partners behave until `SetBehaviour` says otherwise.
    #[command(flatten)]
    pub behaviour: Behaviour,
}

/// How the payment provider and the carrier behave.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Percent of the sandbox's charges that are declined, chosen by customer.
    #[arg(
        id = "sandbox-decline-percent",
        long,
        value_name = "PERCENT",
        env = env::DECLINE_PERCENT,
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
    )]
    pub decline_percent: u32,

    /// Percent of the sandbox's bookings that are refused, chosen by key.
    #[arg(
        id = "sandbox-refuse-percent",
        long,
        value_name = "PERCENT",
        env = env::REFUSE_PERCENT,
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
    )]
    pub refuse_percent: u32,

    /// Seed of the sandbox's choices: the same seed declines the same customers.
    #[arg(
        id = "sandbox-seed",
        long,
        value_name = "NUMBER",
        env = env::SEED,
        default_value_t = 0
    )]
    pub seed: u64,

    /// From a booking in the sandbox to its delivery, milliseconds.
    #[arg(
        id = "sandbox-delivery-ms",
        long,
        value_name = "MS",
        env = env::DELIVERY_MS,
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(0..=DELIVERY_MS_MAX)
    )]
    pub delivery_ms: u32,
}

impl From<BehaviourMessage> for Behaviour {
    fn from(message: BehaviourMessage) -> Self {
        Self {
            decline_percent: message.decline_percent,
            refuse_percent: message.refuse_percent,
            seed: message.seed,
            delivery_ms: message.delivery_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn flags_are_read_and_checked() {
        let arguments = [
            "sandbox",
            "--sandbox-decline-percent",
            "7",
            "--sandbox-seed",
            "42",
        ];
        let config = Command::try_parse_from(arguments)
            .expect("they are fine")
            .config;
        assert_eq!(config.behaviour.decline_percent, 7);
        assert_eq!(config.behaviour.seed, 42);

        for arguments in [
            ["sandbox", "--sandbox-decline-percent", "101"],
            ["sandbox", "--sandbox-refuse-percent", "-1"],
            ["sandbox", "--sandbox-delivery-ms", "3600001"],
        ] {
            assert!(Command::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
    }
}
