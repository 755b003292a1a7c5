//! `ordermesh sandbox faults`.

use anyhow::bail;
use clap::ValueEnum;
use contracts::rules;
use contracts::sandbox::v1::{Behaviour, Faults, GetBehaviourRequest, SetBehaviourRequest};
use platform_client::{Sandbox, request};
use terminal::{Align, Table, count, print_json, print_line};

use crate::BadInput;

const PERCENT_MAX: i64 = 100;
const SLOW_MS_MAX: i64 = 60_000;
const DELIVERY_MS_MAX: i64 = 3_600_000;

/// Flags of `ordermesh sandbox faults`: only the settings that are given change.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Without a flag the current settings are shown. Percentages are drawn for every call, with the same result for the same
seed; declined charges are chosen by customer, refused bookings and refunds by key.

Examples:
  ordermesh sandbox faults
  ordermesh sandbox faults --decline 5 --seed 7
  ordermesh sandbox faults --provider-error 10 --provider-slow 20 --provider-slow-ms 500
  ordermesh sandbox faults --carrier-outage on
  ordermesh sandbox faults --clear")]
pub struct Args {
    /// No faults and no refusals, before the other flags are heeded; seed and delivery stay
    #[arg(long)]
    clear: bool,
    /// Percent of charges that are declined
    #[arg(long, value_name = "PERCENT", value_parser = percent())]
    decline: Option<u32>,
    /// Percent of bookings that are refused
    #[arg(long, value_name = "PERCENT", value_parser = percent())]
    refuse: Option<u32>,
    /// Percent of refunds that are refused
    #[arg(long, value_name = "PERCENT", value_parser = percent())]
    refund_refuse: Option<u32>,
    /// Seed of every choice
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// From a booking to its delivery, milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=DELIVERY_MS_MAX))]
    delivery_ms: Option<u32>,
    #[command(flatten)]
    provider: ProviderArgs,
    #[command(flatten)]
    carrier: CarrierArgs,
    /// Print what is in force as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sandbox: Sandbox,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    On,
    Off,
}

/// The flags of one partner.
macro_rules! partner {
    ($args:ident, $partner:literal, $name:literal) => {
        #[derive(clap::Args, Clone, Debug)]
        struct $args {
            #[arg(
                id = concat!($partner, "-outage"),
                long,
                value_name = "SWITCH",
                help = concat!("Whether ", $name, " refuses every call at once")
            )]
            outage: Option<Switch>,
            #[arg(
                id = concat!($partner, "-hang"),
                long,
                value_name = "PERCENT",
                value_parser = percent(),
                help = concat!("Percent of calls that ", $name, " never answers")
            )]
            hang: Option<u32>,
            #[arg(
                id = concat!($partner, "-error"),
                long,
                value_name = "PERCENT",
                value_parser = percent(),
                help = concat!("Percent of calls that end in an error of ", $name)
            )]
            error: Option<u32>,
            #[arg(
                id = concat!($partner, "-slow"),
                long,
                value_name = "PERCENT",
                value_parser = percent(),
                help = concat!("Percent of calls that ", $name, " begins late")
            )]
            slow: Option<u32>,
            #[arg(
                id = concat!($partner, "-slow-ms"),
                long,
                value_name = "MS",
                value_parser = clap::value_parser!(u32).range(1..=SLOW_MS_MAX),
                help = "How late, milliseconds"
            )]
            slow_ms: Option<u32>,
            #[arg(
                id = concat!($partner, "-reply-lost"),
                long,
                value_name = "PERCENT",
                value_parser = percent(),
                help = concat!("Percent of calls that ", $name, " carries out, and whose answer is lost")
            )]
            reply_lost: Option<u32>,
        }

        impl $args {
            fn change(&self, faults: &mut Faults) {
                change(&mut faults.outage, self.outage.map(|outage| outage == Switch::On));
                change(&mut faults.hang_percent, self.hang);
                change(&mut faults.error_percent, self.error);
                change(&mut faults.slow_percent, self.slow);
                // Without slow calls the delay must be 0.
                change(&mut faults.slow_ms, (self.slow == Some(0)).then_some(0));
                change(&mut faults.slow_ms, self.slow_ms);
                change(&mut faults.reply_lost_percent, self.reply_lost);
            }

            const fn changes(&self) -> bool {
                self.outage.is_some()
                    || self.hang.is_some()
                    || self.error.is_some()
                    || self.slow.is_some()
                    || self.slow_ms.is_some()
                    || self.reply_lost.is_some()
            }
        }
    };
}
partner!(ProviderArgs, "provider", "the payment provider");
partner!(CarrierArgs, "carrier", "the carrier");

fn percent() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=PERCENT_MAX)
}

fn change<T>(value: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *value = new;
    }
}

/// Changes the settings that are given, and shows the current settings.
///
/// # Errors
///
/// The settings are invalid, or the sandbox does not answer.
pub async fn faults(args: &Args) -> anyhow::Result<()> {
    let mut client = args.sandbox.connect();
    let failed = |status| args.sandbox.failed(&status);
    let found = client
        .get_behaviour(request(GetBehaviourRequest {}))
        .await
        .map_err(failed)?;
    let mut behaviour = found.into_inner().behaviour.unwrap_or_default();
    if args.changes() {
        behaviour = args.changed(behaviour)?;
        let setting = SetBehaviourRequest {
            behaviour: Some(behaviour),
        };
        client
            .set_behaviour(request(setting))
            .await
            .map_err(failed)?;
    }
    if args.json {
        return print_json(&behaviour);
    }
    print_line(text(&behaviour))
}

impl Args {
    const fn changes(&self) -> bool {
        self.clear
            || self.decline.is_some()
            || self.refuse.is_some()
            || self.refund_refuse.is_some()
            || self.seed.is_some()
            || self.delivery_ms.is_some()
            || self.provider.changes()
            || self.carrier.changes()
    }

    /// The new settings, checked by the field rules of the contract.
    fn changed(&self, mut behaviour: Behaviour) -> anyhow::Result<Behaviour> {
        if self.clear {
            behaviour = Behaviour {
                seed: behaviour.seed,
                delivery_ms: behaviour.delivery_ms,
                ..Behaviour::default()
            };
        }
        change(&mut behaviour.decline_percent, self.decline);
        change(&mut behaviour.refuse_percent, self.refuse);
        change(&mut behaviour.refund_refuse_percent, self.refund_refuse);
        change(&mut behaviour.seed, self.seed);
        change(&mut behaviour.delivery_ms, self.delivery_ms);
        self.provider
            .change(behaviour.provider.get_or_insert_default());
        self.carrier
            .change(behaviour.carrier.get_or_insert_default());
        let setting = SetBehaviourRequest {
            behaviour: Some(behaviour),
        };
        if let Some(violation) = rules::violations(&setting).first() {
            let flag = flag(&violation.field_path());
            // The message of the contract names a field; the user knows the flag.
            let percent = flag.trim_end_matches("-ms");
            let message = violation.message().replace("slow_percent", percent);
            bail!(BadInput(format!("{flag} {message}")));
        }
        Ok(behaviour)
    }
}

/// `behaviour.provider.slow_ms` is `--provider-slow-ms`.
fn flag(field: &str) -> String {
    let field = field
        .trim_start_matches("behaviour.")
        .replace(['.', '_'], "-");
    format!("--{}", field.trim_end_matches("-percent"))
}

fn text(behaviour: &Behaviour) -> String {
    let mut partners = Table::new([
        ("", Align::Left),
        ("outage", Align::Left),
        ("hang", Align::Right),
        ("error", Align::Right),
        ("slow", Align::Right),
        ("by", Align::Right),
        ("reply lost", Align::Right),
    ]);
    for (name, faults) in [
        ("provider", behaviour.provider),
        ("carrier", behaviour.carrier),
    ] {
        let faults = faults.unwrap_or_default();
        let outage = if faults.outage { "on" } else { "off" };
        partners.row([
            name.into(),
            outage.into(),
            format!("{} %", faults.hang_percent),
            format!("{} %", faults.error_percent),
            format!("{} %", faults.slow_percent),
            format!("{} ms", count(faults.slow_ms)),
            format!("{} %", faults.reply_lost_percent),
        ]);
    }
    format!(
        "{partners}\n\n  declined: {} % of charges; refused: {} % of bookings, {} % of refunds; \
         delivered after {} ms; seed {}",
        behaviour.decline_percent,
        behaviour.refuse_percent,
        behaviour.refund_refuse_percent,
        count(behaviour.delivery_ms),
        behaviour.seed
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn changed(flags: &[&str], behaviour: Behaviour) -> anyhow::Result<Behaviour> {
        let arguments = std::iter::once("faults").chain(flags.iter().copied());
        let args = Cli::try_parse_from(arguments)
            .expect("each flag is fine")
            .args;
        args.changed(behaviour)
    }

    fn given() -> Behaviour {
        Behaviour {
            decline_percent: 3,
            seed: 7,
            delivery_ms: 50,
            provider: Some(Faults {
                error_percent: 10,
                slow_percent: 20,
                slow_ms: 500,
                ..Faults::default()
            }),
            ..Behaviour::default()
        }
    }

    #[test]
    fn settings_without_a_flag_are_unchanged() {
        let behaviour = changed(
            &["--provider-slow", "30", "--carrier-outage", "on"],
            given(),
        );
        let expected = Behaviour {
            provider: Some(Faults {
                slow_percent: 30,
                ..given().provider.unwrap()
            }),
            carrier: Some(Faults {
                outage: true,
                ..Faults::default()
            }),
            ..given()
        };
        assert_eq!(behaviour.unwrap(), expected);
    }

    #[test]
    fn clear_resets_every_fault_but_not_the_seed() {
        let behaviour = changed(&["--clear", "--refuse", "1"], given()).unwrap();
        let expected = Behaviour {
            refuse_percent: 1,
            seed: 7,
            delivery_ms: 50,
            provider: Some(Faults::default()),
            carrier: Some(Faults::default()),
            ..Behaviour::default()
        };
        assert_eq!(behaviour, expected);
    }

    #[test]
    fn no_slow_calls_means_no_delay() {
        let behaviour = changed(&["--provider-slow", "0"], given()).unwrap();
        assert_eq!(behaviour.provider.unwrap().slow_ms, 0);
    }

    #[test]
    fn an_invalid_setting_is_refused_with_its_flag() {
        for flags in [
            &["--carrier-slow", "5"][..],
            &["--carrier-slow-ms", "5"],
            &["--clear", "--carrier-slow-ms", "5"],
        ] {
            let error = changed(flags, given()).unwrap_err();
            assert!(error.is::<BadInput>());
            assert_eq!(
                error.to_string(),
                "--carrier-slow-ms must be 1 or more exactly when --carrier-slow is"
            );
        }
    }

    #[test]
    fn all_settings_are_shown() {
        let text = text(&given());
        for part in [
            "provider  off",
            "20 %  500 ms",
            "declined: 3 % of charges",
            "seed 7",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
