//! Whether the clocks agree: order ids are made by clients and judged by the broker's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chassis::config;
use contracts::{Service, Topic};
use engine::Cluster;
use engine::log::kafka::settings;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::broker::{self, PATIENCE};
use super::database::{self, options, place};
use super::{Finding, topics};
use terminal::count;

pub const DATABASE: &str = "clock";
pub const BROKER: &str = "broker's clock";

/// More than this is worth a look; five minutes ahead is where fresh order ids are refused.
const TOLERANCE: Duration = Duration::from_secs(1);

const SET: &str = "let both machines take their time from the same source (NTP)";

/// The local clock against PostgreSQL's, in the middle of the question.
pub async fn against_database(database: &config::Database) -> Finding {
    let options = match options(database) {
        Ok(options) => options,
        Err(error) => return database::unreachable(DATABASE, "", &error),
    };
    let asked = async {
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
    match asked.await {
        Ok(ahead_ms) => judge(ahead_ms),
        Err(error) => database::unreachable(DATABASE, &place(&options), &error),
    }
}

fn judge(ahead_ms: i64) -> Finding {
    let differs = ahead_ms.unsigned_abs();
    let detail = match ahead_ms {
        0 => "as PostgreSQL's".to_owned(),
        1.. => format!("{} ms behind PostgreSQL's", count(differs)),
        _ => format!("{} ms ahead of PostgreSQL's", count(differs)),
    };
    if Duration::from_millis(differs) > TOLERANCE {
        Finding::warning(DATABASE, detail, SET)
    } else {
        Finding::ok(DATABASE, detail)
    }
}

/// The broker tells its time only in what it appends: a record from the future gives a fast clock away.
pub async fn against_broker(cluster: &Cluster) -> Finding {
    let asked = cluster.clone();
    // The clients of the log block.
    let looked = tokio::task::spawn_blocking(move || from_the_future(&asked)).await;
    let reason = match looked {
        Ok(Ok(false)) => {
            return Finding::ok(BROKER, "no command was appended in this machine's future");
        }
        Ok(Ok(true)) => {
            return Finding::warning(
                BROKER,
                "commands were appended in this machine's future: the broker's clock is ahead",
                SET,
            );
        }
        Ok(Err(error)) if is_missing(&error) => {
            return Finding::failed(
                BROKER,
                "it is told by topics that are missing",
                topics::MAKE,
            );
        }
        Ok(Err(error)) => super::chain(&error),
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

fn from_the_future(cluster: &Cluster) -> KafkaResult<bool> {
    let client: BaseConsumer = settings::reader(cluster, "read_uncommitted").create()?;
    let soon = unix_ms() + i64::try_from(TOLERANCE.as_millis()).unwrap_or_default();
    let mut times = TopicPartitionList::new();
    for service in Service::ALL {
        let topic = cluster.topic(service, Topic::Commands);
        for partition in 0..i32::from(cluster.partitions) {
            times.add_partition_offset(&topic, partition, Offset::Offset(soon))?;
        }
    }
    let found = client.offsets_for_times(times, PATIENCE)?;
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
    fn more_than_a_second_is_worth_a_look() {
        for (ahead_ms, health, detail) in [
            (0, Health::Ok, "as PostgreSQL's"),
            (1_000, Health::Ok, "1,000 ms behind PostgreSQL's"),
            (1_001, Health::Warning, "1,001 ms behind PostgreSQL's"),
            (-90_000, Health::Warning, "90,000 ms ahead of PostgreSQL's"),
        ] {
            let finding = judge(ahead_ms);
            assert_eq!((finding.health, finding.detail.as_str()), (health, detail));
        }
    }
}
