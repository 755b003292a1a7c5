//! The configuration of the sandbox: the folder of its ledgers, how its partners behave, and how they fail.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use contracts::sandbox::v1::{Behaviour, Faults, SetBehaviourRequest};
use contracts::{Violation, rules};

/// The environment variables of the sandbox.
pub mod env {
    /// Folder of the ledgers.
    pub const LEDGER: &str = "ORDERMESH_SANDBOX_LEDGER";
    /// Percent of charges that are declined.
    pub const DECLINE_PERCENT: &str = "ORDERMESH_SANDBOX_DECLINE_PERCENT";
    /// Percent of bookings that are refused.
    pub const REFUSE_PERCENT: &str = "ORDERMESH_SANDBOX_REFUSE_PERCENT";
    /// Percent of refunds that are refused.
    pub const REFUND_REFUSE_PERCENT: &str = "ORDERMESH_SANDBOX_REFUND_REFUSE_PERCENT";
    /// Seed of every pseudo-random choice.
    pub const SEED: &str = "ORDERMESH_SANDBOX_SEED";
    /// From booking to delivery, milliseconds.
    pub const DELIVERY_MS: &str = "ORDERMESH_SANDBOX_DELIVERY_MS";

    /// How the payment provider fails.
    pub mod provider {
        /// Refuses every call at once.
        pub const OUTAGE: &str = "ORDERMESH_SANDBOX_PROVIDER_OUTAGE";
        /// Percent of calls that are never answered.
        pub const HANG_PERCENT: &str = "ORDERMESH_SANDBOX_PROVIDER_HANG_PERCENT";
        /// Percent of calls that end in a server error.
        pub const ERROR_PERCENT: &str = "ORDERMESH_SANDBOX_PROVIDER_ERROR_PERCENT";
        /// Percent of calls that begin late.
        pub const SLOW_PERCENT: &str = "ORDERMESH_SANDBOX_PROVIDER_SLOW_PERCENT";
        /// How late, milliseconds.
        pub const SLOW_MS: &str = "ORDERMESH_SANDBOX_PROVIDER_SLOW_MS";
        /// Percent of calls whose answer is lost.
        pub const REPLY_LOST_PERCENT: &str = "ORDERMESH_SANDBOX_PROVIDER_REPLY_LOST_PERCENT";
    }

    /// How the carrier fails.
    pub mod carrier {
        /// Refuses every call at once.
        pub const OUTAGE: &str = "ORDERMESH_SANDBOX_CARRIER_OUTAGE";
        /// Percent of calls that are never answered.
        pub const HANG_PERCENT: &str = "ORDERMESH_SANDBOX_CARRIER_HANG_PERCENT";
        /// Percent of calls that end in a server error.
        pub const ERROR_PERCENT: &str = "ORDERMESH_SANDBOX_CARRIER_ERROR_PERCENT";
        /// Percent of calls that begin late.
        pub const SLOW_PERCENT: &str = "ORDERMESH_SANDBOX_CARRIER_SLOW_PERCENT";
        /// How late, milliseconds.
        pub const SLOW_MS: &str = "ORDERMESH_SANDBOX_CARRIER_SLOW_MS";
        /// Percent of calls whose answer is lost.
        pub const REPLY_LOST_PERCENT: &str = "ORDERMESH_SANDBOX_CARRIER_REPLY_LOST_PERCENT";
    }
}

// The limits of the contract's `Behaviour`.
const PERCENT_MAX: i64 = 100;
const DELIVERY_MS_MAX: i64 = 3_600_000;
const SLOW_MS_MAX: i64 = 60_000;

/// The sandbox's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Folder of the sandbox's ledgers.
    pub ledger: PathBuf,
    /// How the partners behave until a `SetBehaviour` call changes it.
    pub behaviour: Behaviour,
}

/// The flags of [`Config`].
#[derive(Args)]
#[group(skip)]
struct Flags {
    /// Folder of the sandbox's ledgers
    #[arg(
        id = "sandbox-ledger",
        long,
        value_name = "FOLDER",
        env = env::LEDGER,
        default_value = ".stack/sandbox"
    )]
    ledger: PathBuf,

    /// Percent of the sandbox's charges that are declined, chosen by customer
    #[arg(
        id = "sandbox-decline-percent",
        long,
        value_name = "PERCENT",
        env = env::DECLINE_PERCENT,
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
    )]
    decline_percent: u32,

    /// Percent of the sandbox's bookings that are refused, chosen by key
    #[arg(
        id = "sandbox-refuse-percent",
        long,
        value_name = "PERCENT",
        env = env::REFUSE_PERCENT,
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
    )]
    refuse_percent: u32,

    /// Percent of the sandbox's refunds that are refused, chosen by key
    #[arg(
        id = "sandbox-refund-refuse-percent",
        long,
        value_name = "PERCENT",
        env = env::REFUND_REFUSE_PERCENT,
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
    )]
    refund_refuse_percent: u32,

    /// Seed of the sandbox's choices: the same seed declines the same customers, and fails in the same calls
    #[arg(
        id = "sandbox-seed",
        long,
        value_name = "NUMBER",
        env = env::SEED,
        default_value_t = 0
    )]
    seed: u64,

    /// From a booking in the sandbox to its delivery, milliseconds
    #[arg(
        id = "sandbox-delivery-ms",
        long,
        value_name = "MS",
        env = env::DELIVERY_MS,
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(0..=DELIVERY_MS_MAX)
    )]
    delivery_ms: u32,

    #[command(flatten)]
    provider: ProviderFaults,

    #[command(flatten)]
    carrier: CarrierFaults,
}

/// The flags of one partner's faults.
macro_rules! fault_flags {
    ($name:ident, $partner:ident) => {
        #[derive(Args)]
        #[group(skip)]
        struct $name {
            #[arg(
                id = concat!("sandbox-", stringify!($partner), "-outage"),
                long,
                help = concat!("The sandbox's ", stringify!($partner), " refuses every call at once"),
                env = env::$partner::OUTAGE
            )]
            outage: bool,

            #[arg(
                id = concat!("sandbox-", stringify!($partner), "-hang-percent"),
                long,
                help = concat!("Percent of calls that the sandbox's ", stringify!($partner), " never answers"),
                value_name = "PERCENT",
                env = env::$partner::HANG_PERCENT,
                default_value_t = 0,
                value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
            )]
            hang_percent: u32,

            #[arg(
                id = concat!("sandbox-", stringify!($partner), "-error-percent"),
                long,
                help = concat!("Percent of calls to the sandbox's ", stringify!($partner), " that end in a server error"),
                value_name = "PERCENT",
                env = env::$partner::ERROR_PERCENT,
                default_value_t = 0,
                value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
            )]
            error_percent: u32,

            #[arg(
                id = concat!("sandbox-", stringify!($partner), "-slow-percent"),
                long,
                help = concat!("Percent of calls that the sandbox's ", stringify!($partner), " begins late"),
                value_name = "PERCENT",
                env = env::$partner::SLOW_PERCENT,
                default_value_t = 0,
                value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
            )]
            slow_percent: u32,

            #[arg(
                id = concat!("sandbox-", stringify!($partner), "-slow-ms"),
                long,
                help = concat!("How late the sandbox's ", stringify!($partner), " begins them, milliseconds"),
                value_name = "MS",
                env = env::$partner::SLOW_MS,
                default_value_t = 0,
                value_parser = clap::value_parser!(u32).range(0..=SLOW_MS_MAX)
            )]
            slow_ms: u32,

            #[arg(
                id = concat!("sandbox-", stringify!($partner), "-reply-lost-percent"),
                long,
                help = concat!("Percent of calls that the sandbox's ", stringify!($partner), " carries out, but whose answer is lost"),
                value_name = "PERCENT",
                env = env::$partner::REPLY_LOST_PERCENT,
                default_value_t = 0,
                value_parser = clap::value_parser!(u32).range(0..=PERCENT_MAX)
            )]
            reply_lost_percent: u32,
        }

        impl From<$name> for Faults {
            fn from(flags: $name) -> Self {
                Self {
                    outage: flags.outage,
                    hang_percent: flags.hang_percent,
                    error_percent: flags.error_percent,
                    slow_percent: flags.slow_percent,
                    slow_ms: flags.slow_ms,
                    reply_lost_percent: flags.reply_lost_percent,
                }
            }
        }
    };
}

fault_flags!(ProviderFaults, provider);
fault_flags!(CarrierFaults, carrier);

impl Args for Config {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

impl FromArgMatches for Config {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = Flags::from_arg_matches(matches)?;
        let behaviour = Behaviour {
            decline_percent: flags.decline_percent,
            refuse_percent: flags.refuse_percent,
            seed: flags.seed,
            delivery_ms: flags.delivery_ms,
            refund_refuse_percent: flags.refund_refuse_percent,
            provider: Some(flags.provider.into()),
            carrier: Some(flags.carrier.into()),
        };
        let request = SetBehaviourRequest {
            behaviour: Some(behaviour),
        };
        match rules::violations(&request).first() {
            Some(violation) => Err(invalid_flag(violation)),
            None => Ok(Self {
                ledger: flags.ledger,
                behaviour,
            }),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Reports a violated field rule by the flag of its field: `behaviour.provider.slow_ms` is
/// `--sandbox-provider-slow-ms`.
fn invalid_flag(violation: &Violation) -> clap::Error {
    let path = violation.field_path();
    let field = path.strip_prefix("behaviour.").unwrap_or(&path);
    let flag = format!("--sandbox-{}", field.replace(['.', '_'], "-"));
    let message = format!("invalid value for '{flag}': {}", violation.message());
    let mut error = clap::Error::raw(ErrorKind::ValueValidation, message);
    error.insert(ContextKind::InvalidArg, ContextValue::String(flag));
    error
}

#[cfg(test)]
mod tests {
    use chassis::config::{EXIT_BAD_VALUE, Invalid, parse};
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Sandbox {
        #[command(flatten)]
        config: Config,
    }

    fn parse_flags(flags: &[&str]) -> Result<Config, Invalid> {
        let arguments = std::iter::once("sandbox").chain(flags.iter().copied());
        parse::<Sandbox>(arguments).map(|sandbox| sandbox.config)
    }

    #[test]
    fn by_default_the_partners_accept_everything_and_have_no_faults() {
        let expected = Behaviour {
            delivery_ms: 200,
            provider: Some(Faults::default()),
            carrier: Some(Faults::default()),
            ..Default::default()
        };
        assert_eq!(parse_flags(&[]).expect("it is valid").behaviour, expected);
    }

    #[test]
    fn flags_are_read() {
        let config = parse_flags(&[
            "--sandbox-decline-percent=7",
            "--sandbox-refund-refuse-percent=8",
            "--sandbox-seed=42",
            "--sandbox-provider-outage",
            "--sandbox-provider-hang-percent=1",
            "--sandbox-carrier-error-percent=2",
            "--sandbox-carrier-slow-percent=3",
            "--sandbox-carrier-slow-ms=4",
            "--sandbox-carrier-reply-lost-percent=5",
        ]);
        let behaviour = Behaviour {
            decline_percent: 7,
            refund_refuse_percent: 8,
            seed: 42,
            delivery_ms: 200,
            provider: Some(Faults {
                outage: true,
                hang_percent: 1,
                ..Default::default()
            }),
            carrier: Some(Faults {
                error_percent: 2,
                slow_percent: 3,
                slow_ms: 4,
                reply_lost_percent: 5,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(config.expect("it is valid").behaviour, behaviour);
    }

    #[test]
    fn a_bad_value_is_one_line_that_names_flag_and_variable() {
        for (flags, named, variable) in [
            (
                &["--sandbox-decline-percent=101"][..],
                "--sandbox-decline-percent",
                env::DECLINE_PERCENT,
            ),
            (
                &["--sandbox-refuse-percent=-1"],
                "--sandbox-refuse-percent",
                env::REFUSE_PERCENT,
            ),
            (
                &["--sandbox-delivery-ms=3600001"],
                "--sandbox-delivery-ms",
                env::DELIVERY_MS,
            ),
            (
                &["--sandbox-provider-error-percent=101"],
                "--sandbox-provider-error-percent",
                env::provider::ERROR_PERCENT,
            ),
            (
                &["--sandbox-carrier-slow-ms=60001"],
                "--sandbox-carrier-slow-ms",
                env::carrier::SLOW_MS,
            ),
            // A rule that spans two flags.
            (
                &["--sandbox-provider-slow-percent=5"],
                "--sandbox-provider-slow-ms",
                env::provider::SLOW_MS,
            ),
            (
                &["--sandbox-carrier-slow-ms=5"],
                "--sandbox-carrier-slow-ms",
                env::carrier::SLOW_MS,
            ),
        ] {
            let invalid = parse_flags(flags).expect_err(named);
            assert_eq!(invalid.exit_code, EXIT_BAD_VALUE, "{flags:?}");
            let message = invalid.message;
            assert!(
                message.contains(named) && message.contains(variable),
                "{message}"
            );
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
