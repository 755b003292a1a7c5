//! `ordermesh events`: prints records of the log, decoded.

mod follow;
mod line;

use std::io::{BufWriter, Stdout, Write as _};

use chassis::config;
use clap::Subcommand;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::{Ends, Input};
use uuid::Uuid;

use platform_client::content;
use platform_client::decoder::Decoder;
use platform_client::topic_reader;

/// The subcommands of `ordermesh events`.
#[derive(Subcommand)]
#[command(after_help = "\
Example:
  ordermesh events tail --service payments")]
pub enum Command {
    /// Print records as they are committed, or those that exist
    Tail(Args),
}

/// Flags of `ordermesh events tail`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Topics are orders, inventory, payments and shipping, each with commands, events, state, outcomes and dlq.
Without --topic and --service the events of all four are shown.

Examples:
  ordermesh events tail
  ordermesh events tail --topic orders.dlq --from-beginning --no-follow
  ordermesh events tail --order 0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11
  ordermesh events tail --service payments --json | jq .record")]
pub struct Args {
    /// A topic, without its prefix; may be given several times
    #[arg(long = "topic", value_name = "TOPIC", value_parser = topic)]
    topics: Vec<(Service, Topic)>,
    /// A service: its events; may be given several times
    #[arg(long = "service", value_name = "SERVICE", value_parser = service)]
    services: Vec<Service>,
    /// Only what belongs to this order, in order of time; looks from the beginning and does not follow
    #[arg(long, value_name = "ID", value_parser = order_id)]
    order: Option<Uuid>,
    /// Begin with the first record that there is, in order of time
    #[arg(long)]
    from_beginning: bool,
    /// Go on with what is committed from now on [default, except with --order]
    #[arg(long)]
    follow: bool,
    /// End when everything that there is has been printed
    #[arg(long, conflicts_with = "follow")]
    no_follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: config::Kafka,
    #[command(flatten)]
    registry: config::Registry,
}

impl Args {
    fn topics(&self) -> Vec<(Service, Topic)> {
        let mut topics = self.topics.clone();
        topics.extend(
            self.services
                .iter()
                .map(|service| (*service, Topic::Events)),
        );
        if topics.is_empty() {
            topics.extend(Service::ALL.map(|service| (service, Topic::Events)));
        }
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    const fn reads_existing(&self) -> bool {
        self.from_beginning || self.order.is_some()
    }

    const fn follows(&self) -> bool {
        self.follow || !(self.no_follow || self.order.is_some())
    }
}

/// Prints records until there are no more, or until interrupted.
///
/// # Errors
///
/// The broker or the registry does not answer, or standard output is closed.
pub async fn tail(args: Args) -> anyhow::Result<()> {
    let cluster = platform_client::cluster(&args.kafka);
    let schemas =
        platform_client::schemas(&args.registry, &args.kafka.prefix, &[], &args.topics()).await?;
    let decoder = Decoder::new(schemas);
    // Without following, no clean shutdown is needed: the default action of the signal is enough.
    let stop = if args.follows() {
        Some(platform_client::shutdown_signal()?)
    } else {
        None
    };
    // The Kafka clients block.
    tokio::task::spawn_blocking(move || {
        let mut printer = Printer {
            out: BufWriter::new(std::io::stdout()),
            decoder,
            prefix: args.kafka.prefix.clone(),
            order: args.order.map(content::OrderFilter::of),
            json: args.json,
        };
        let mut topics = Vec::new();
        for (service, topic) in args.topics() {
            let ends = topic_reader::ends(&cluster, service, topic)?;
            topics.push(TopicEnds {
                service,
                topic,
                ends,
            });
        }
        if args.reads_existing() {
            for (service, topic, input) in existing_records(&cluster, &topics)? {
                printer.print(service, topic, &input)?;
            }
        }
        printer.out.flush()?;
        match stop {
            Some(stop) => follow::follow(&cluster, &topics, &stop, |service, topic, input| {
                printer.print(service, topic, input)?;
                Ok(printer.out.flush()?)
            }),
            None => Ok(()),
        }
    })
    .await?
}

/// A topic and its end offsets when the subcommand started.
struct TopicEnds {
    service: Service,
    topic: Topic,
    ends: Vec<Ends>,
}

/// All records up to the ends, sorted by time.
fn existing_records(
    cluster: &Cluster,
    topics: &[TopicEnds],
) -> anyhow::Result<Vec<(Service, Topic, Input)>> {
    let mut records = Vec::new();
    for TopicEnds {
        service,
        topic,
        ends,
    } in topics
    {
        topic_reader::read(cluster, *service, *topic, ends, |input| {
            records.push((*service, *topic, input));
            Ok(())
        })?;
    }
    // A stable sort: records of one transaction with the same time keep their order within a partition.
    records.sort_by_key(|(.., input)| input.time_ms);
    Ok(records)
}

struct Printer {
    /// Buffered, because there are many existing records.
    out: BufWriter<Stdout>,
    decoder: Decoder,
    prefix: String,
    order: Option<content::OrderFilter>,
    json: bool,
}

impl Printer {
    fn print(&mut self, service: Service, topic: Topic, input: &Input) -> anyhow::Result<()> {
        let content = self.decoder.content(service, topic, input);
        if self
            .order
            .as_mut()
            .is_some_and(|filter| !filter.matches(input, &content))
        {
            return Ok(());
        }
        let line = if self.json {
            line::json(&topic.of(service, &self.prefix), input, &content)?
        } else {
            // Without the prefix, as in the flags.
            line::text(&topic.of(service, ""), input, &content)
        };
        Ok(writeln!(self.out, "{line}")?)
    }
}

fn topic(text: &str) -> Result<(Service, Topic), String> {
    let known = || {
        platform_client::all_topics()
            .into_iter()
            .map(|(service, topic)| (topic.of(service, ""), service, topic))
    };
    known()
        .find(|(name, ..)| name == text)
        .map(|(_, service, topic)| (service, topic))
        .ok_or_else(|| "expected a topic such as orders.events; see --help".to_owned())
}

fn service(text: &str) -> Result<Service, String> {
    Service::ALL
        .into_iter()
        .find(|service| service.name() == text)
        .ok_or_else(|| "expected orders, inventory, payments or shipping".to_owned())
}

fn order_id(text: &str) -> Result<Uuid, String> {
    Uuid::try_parse(text).map_err(|_| "expected a UUID".to_owned())
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

    fn args(flags: &[&str]) -> Args {
        Cli::try_parse_from(std::iter::once("tail").chain(flags.iter().copied()))
            .expect("they are fine")
            .args
    }

    #[test]
    fn all_event_topics_are_followed_by_default() {
        let all = args(&[]);
        assert_eq!(
            all.topics(),
            Service::ALL.map(|service| (service, Topic::Events))
        );
        assert!(all.follows() && !all.reads_existing());

        let of_order = args(&["--order", "0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11"]);
        assert!(!of_order.follows() && of_order.reads_existing());
        let followed = args(&[
            "--order",
            "0191b2f0-5a4e-7cc3-9d1f-6f0f1f6f0a11",
            "--follow",
        ]);
        assert!(followed.follows() && followed.reads_existing());
        assert!(!args(&["--no-follow"]).follows());
    }

    #[test]
    fn topics_are_selected_by_name_or_service() {
        let chosen = args(&[
            "--topic",
            "orders.dlq",
            "--service",
            "payments",
            "--topic",
            "orders.dlq",
        ]);
        assert_eq!(
            chosen.topics(),
            [
                (Service::Orders, Topic::Dlq),
                (Service::Payments, Topic::Events)
            ]
        );
    }
}
