//! The configuration of payments: when a refused refund is retried.

use clap::Args;

use crate::payment::{PaymentRules, REFUND_WAIT_MAX_MS};

/// The environment variables of payments.
pub mod env {
    /// From the first refusal of a refund to its next attempt, milliseconds.
    pub const REFUND_WAIT_MS: &str = "ORDERMESH_PAYMENTS_REFUND_WAIT_MS";
}

/// The configuration of payments.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
// clap would name a group after the type, and other services have a type with the same name.
#[group(skip)]
pub struct Config {
    /// From the first refusal of a refund to its next attempt, milliseconds; doubles with every refusal, up to an hour
    #[arg(
        id = "payments-refund-wait-ms",
        long,
        value_name = "MS",
        env = env::REFUND_WAIT_MS,
        default_value_t = PaymentRules::default().refund_wait_ms,
        value_parser = clap::value_parser!(i64).range(1..=REFUND_WAIT_MAX_MS)
    )]
    pub refund_wait_ms: i64,
}

impl Config {
    /// The rule book with these times.
    pub const fn rules(self) -> PaymentRules {
        PaymentRules {
            refund_wait_ms: self.refund_wait_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use chassis::config::{EXIT_BAD_VALUE, Invalid, parse};
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Payments {
        #[command(flatten)]
        config: Config,
    }

    fn parse_flags(flags: &[&str]) -> Result<PaymentRules, Invalid> {
        let arguments = std::iter::once("payments").chain(flags.iter().copied());
        parse::<Payments>(arguments).map(|payments| payments.config.rules())
    }

    #[test]
    fn flags_become_rules() {
        assert_eq!(
            parse_flags(&[]).expect("it is valid"),
            PaymentRules::default()
        );
        let rules = parse_flags(&["--payments-refund-wait-ms=200"]).expect("it is valid");
        assert_eq!(rules.refund_wait_ms, 200);
    }

    #[test]
    fn a_wait_out_of_range_is_refused_and_names_its_flag() {
        for wait in ["0", "-1", "3600001", "soon"] {
            let flag = format!("--payments-refund-wait-ms={wait}");
            let invalid = parse_flags(&[&flag]).expect_err(wait);
            assert_eq!(invalid.exit_code, EXIT_BAD_VALUE);
            let message = invalid.message;
            assert!(
                message.contains("--payments-refund-wait-ms")
                    && message.contains(env::REFUND_WAIT_MS),
                "{message}"
            );
        }
    }
}
