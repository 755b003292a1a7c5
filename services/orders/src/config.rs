//! The configuration of orders: how long an order may take for each of its steps.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use engine::worker::Settings;

use crate::order::OrderRules;

/// The environment variables of orders.
pub mod env {
    /// How old the id of a new order may be, milliseconds.
    pub const HORIZON_MS: &str = "ORDERMESH_ORDERS_HORIZON_MS";
    /// How long inventory may take, milliseconds.
    pub const STOCK_WAIT_MS: &str = "ORDERMESH_ORDERS_STOCK_WAIT_MS";
    /// How long payments may take, milliseconds.
    pub const PAYMENT_WAIT_MS: &str = "ORDERMESH_ORDERS_PAYMENT_WAIT_MS";
    /// How long shipping may take, milliseconds.
    pub const SHIPPING_WAIT_MS: &str = "ORDERMESH_ORDERS_SHIPPING_WAIT_MS";
    /// How long a parcel may be in transit, milliseconds.
    pub const DELIVERY_WAIT_MS: &str = "ORDERMESH_ORDERS_DELIVERY_WAIT_MS";
}

const SECOND_MS: i64 = 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * SECOND_MS;
/// A finished order stays in memory for the horizon.
const HORIZON_MS: RangeInclusive<i64> = SECOND_MS..=DAY_MS;
/// The retention of the command topics is seven days.
const WAIT_MS: RangeInclusive<i64> = 100..=7 * DAY_MS;
const DELIVERY_WAIT_MS: RangeInclusive<i64> = 100..=365 * DAY_MS;

/// The configuration of orders.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
// clap would name a group after the type, and other services have a type with the same name.
#[group(skip)]
pub struct Config {
    /// How old the id of a new order may be, milliseconds; retries within it are safe
    #[arg(
        id = "orders-horizon-ms",
        long,
        value_name = "MS",
        env = env::HORIZON_MS,
        default_value_t = OrderRules::default().horizon_ms,
        value_parser = clap::value_parser!(i64).range(HORIZON_MS)
    )]
    pub horizon_ms: i64,

    /// How long inventory may take to reserve an order's lines before the order is rejected, milliseconds
    #[arg(
        id = "orders-stock-wait-ms",
        long,
        value_name = "MS",
        env = env::STOCK_WAIT_MS,
        default_value_t = OrderRules::default().stock_wait_ms,
        value_parser = clap::value_parser!(i64).range(WAIT_MS)
    )]
    pub stock_wait_ms: i64,

    /// How long payments may take to charge before the order is rejected, milliseconds
    #[arg(
        id = "orders-payment-wait-ms",
        long,
        value_name = "MS",
        env = env::PAYMENT_WAIT_MS,
        default_value_t = OrderRules::default().payment_wait_ms,
        value_parser = clap::value_parser!(i64).range(WAIT_MS)
    )]
    pub payment_wait_ms: i64,

    /// How long shipping may take to hand a parcel over before its cancellation is asked for, milliseconds
    #[arg(
        id = "orders-shipping-wait-ms",
        long,
        value_name = "MS",
        env = env::SHIPPING_WAIT_MS,
        default_value_t = OrderRules::default().shipping_wait_ms,
        value_parser = clap::value_parser!(i64).range(WAIT_MS)
    )]
    pub shipping_wait_ms: i64,

    /// How long a parcel may be on its way before its order is flagged as late, milliseconds
    #[arg(
        id = "orders-delivery-wait-ms",
        long,
        value_name = "MS",
        env = env::DELIVERY_WAIT_MS,
        default_value_t = OrderRules::default().delivery_wait_ms,
        value_parser = clap::value_parser!(i64).range(DELIVERY_WAIT_MS)
    )]
    pub delivery_wait_ms: i64,
}

impl Config {
    /// The rule book with these times.
    pub const fn rules(self) -> OrderRules {
        OrderRules {
            horizon_ms: self.horizon_ms,
            stock_wait_ms: self.stock_wait_ms,
            payment_wait_ms: self.payment_wait_ms,
            shipping_wait_ms: self.shipping_wait_ms,
            delivery_wait_ms: self.delivery_wait_ms,
        }
    }

    /// The settings of the worker: finished orders stay in memory while their ids are within the horizon.
    pub fn settings(self) -> Settings {
        Settings {
            horizon: Duration::from_millis(self.horizon_ms.unsigned_abs()),
            ..Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use chassis::config::{EXIT_BAD_VALUE, Invalid, parse};
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Orders {
        #[command(flatten)]
        config: Config,
    }

    fn parse_flags(flags: &[&str]) -> Result<Config, Invalid> {
        let arguments = std::iter::once("orders").chain(flags.iter().copied());
        parse::<Orders>(arguments).map(|orders| orders.config)
    }

    #[test]
    fn flags_become_rules() {
        let config = parse_flags(&[]).expect("it is valid");
        assert_eq!(config.rules(), OrderRules::default());

        let config = parse_flags(&[
            "--orders-horizon-ms=60000",
            "--orders-stock-wait-ms=1000",
            "--orders-payment-wait-ms=2000",
            "--orders-shipping-wait-ms=3000",
            "--orders-delivery-wait-ms=4000",
        ])
        .expect("it is valid");
        let rules = OrderRules {
            horizon_ms: 60_000,
            stock_wait_ms: 1_000,
            payment_wait_ms: 2_000,
            shipping_wait_ms: 3_000,
            delivery_wait_ms: 4_000,
        };
        assert_eq!(config.rules(), rules);
        assert_eq!(config.settings().horizon, Duration::from_secs(60));
    }

    #[test]
    fn a_time_out_of_range_is_refused_and_names_its_flag() {
        for (flag, variable, longest) in [
            ("--orders-horizon-ms", env::HORIZON_MS, DAY_MS),
            ("--orders-stock-wait-ms", env::STOCK_WAIT_MS, 7 * DAY_MS),
            ("--orders-payment-wait-ms", env::PAYMENT_WAIT_MS, 7 * DAY_MS),
            (
                "--orders-shipping-wait-ms",
                env::SHIPPING_WAIT_MS,
                7 * DAY_MS,
            ),
            (
                "--orders-delivery-wait-ms",
                env::DELIVERY_WAIT_MS,
                365 * DAY_MS,
            ),
        ] {
            assert!(parse_flags(&[&format!("{flag}={longest}")]).is_ok());
            for value in ["-1", "0", "99", "soon", &(longest + 1).to_string()] {
                let invalid = parse_flags(&[&format!("{flag}={value}")]).expect_err(flag);
                assert_eq!(invalid.exit_code, EXIT_BAD_VALUE);
                let message = invalid.message;
                assert!(
                    message.contains(flag) && message.contains(variable),
                    "{message}"
                );
            }
        }
    }
}
