//! Checks that the clocks agree: clients create order ids by their clock, and the age of an id is measured by the clock
//! of the broker.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chassis::config;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::settings;
use platform_client::kafka::client;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use terminal::count;

use super::broker::{self, TIMEOUT};
use super::database::{self, location, options};
use super::{CheckResult, topics};

pub const DATABASE: &str = "clock";
pub const BROKER: &str = "broker's clock";

/// A greater difference is a warning. Fresh order ids are refused from five minutes ahead on.
const TOLERANCE: Duration = Duration::from_secs(1);

const NTP_HINT: &str = "let both machines take their time from the same source (NTP)";

/// Compares the clock of PostgreSQL with the middle of the query by the local clock.
pub async fn against_database(database: &config::Database) -> CheckResult {
    let options = match options(database) {
        Ok(options) => options,
        Err(error) => return database::unreachable(DATABASE, "", &error),
    };
    let query = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let before = unix_ms();
        let there: i64 =
            sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
                .fetch_one(&mut connection)
                .await?;
        let here = before.midpoint(unix_ms());
        connection.close().await?;
        Ok(there - here)
    };
    match query.await {
        Ok(offset_ms) => evaluate(offset_ms),
        Err(error) => database::unreachable(DATABASE, &location(&options), &error),
    }
}

fn evaluate(offset_ms: i64) -> CheckResult {
    let differs = offset_ms.unsigned_abs();
    let detail = match offset_ms {
        0 => "as PostgreSQL's".to_owned(),
        1.. => format!("{} ms behind PostgreSQL's", count(differs)),
        _ => format!("{} ms ahead of PostgreSQL's", count(differs)),
    };
    if Duration::from_millis(differs) > TOLERANCE {
        CheckResult::warning(DATABASE, detail, NTP_HINT)
    } else {
        CheckResult::ok(DATABASE, detail)
    }
}

/// The broker exposes its clock only as append times: a record from the future shows that its clock is ahead.
pub async fn against_broker(cluster: &Cluster) -> CheckResult {
    let cluster_copy = cluster.clone();
    // The Kafka clients block.
    let probed = tokio::task::spawn_blocking(move || has_future_records(&cluster_copy)).await;
    let reason = match probed {
        Ok(Ok(false)) => {
            return CheckResult::ok(BROKER, "no command was appended in this machine's future");
        }
        Ok(Ok(true)) => {
            return CheckResult::warning(
                BROKER,
                "commands were appended in this machine's future: the broker's clock is ahead",
                NTP_HINT,
            );
        }
        Ok(Err(error)) if is_missing(&error) => {
            return CheckResult::failed(
                BROKER,
                "it is read from topics that are missing",
                topics::CREATE_HINT,
            );
        }
        Ok(Err(error)) => super::error_chain(&error),
        Err(error) => error.to_string(),
    };
    broker::unreachable(BROKER, &cluster.bootstrap, &reason)
}

fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
    )
}

fn has_future_records(cluster: &Cluster) -> KafkaResult<bool> {
    let client = client(settings::reader(cluster, "read_uncommitted"))?;
    let soon = unix_ms() + i64::try_from(TOLERANCE.as_millis()).unwrap_or_default();
    let mut times = TopicPartitionList::new();
    for service in Service::ALL {
        let topic = cluster.topic(service, Topic::Commands);
        for partition in 0..i32::from(cluster.partitions) {
            times.add_partition_offset(&topic, partition, Offset::Offset(soon))?;
        }
    }
    let found = client.offsets_for_times(times, TIMEOUT)?;
    Ok(found
        .elements()
        .iter()
        .any(|element| matches!(element.offset(), Offset::Offset(_))))
}

fn unix_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    #[test]
    fn a_difference_of_more_than_a_second_is_a_warning() {
        for (offset_ms, health, detail) in [
            (0, Health::Ok, "as PostgreSQL's"),
            (1_000, Health::Ok, "1,000 ms behind PostgreSQL's"),
            (1_001, Health::Warning, "1,001 ms behind PostgreSQL's"),
            (-90_000, Health::Warning, "90,000 ms ahead of PostgreSQL's"),
        ] {
            let result = evaluate(offset_ms);
            assert_eq!((result.health, result.detail.as_str()), (health, detail));
        }
    }
}
