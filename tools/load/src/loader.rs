//! Places baskets until each has its answer.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use contracts::orders::v1::{PlaceOrderRequest, PlaceOrderResponse, PlaceOrderWait};
use contracts::query::v1::GetOrderRequest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::baskets::{Basket, CURRENCY, Line};
use super::journal::{Fact, Journal, Past};
use super::refusal::{Refusal, refusal};
use platform_client::retry::{self, Backoff};
use platform_client::{Clients, request};
use terminal::progress::Progress;

/// More stale answers to fresh ids than this mean that the clocks differ.
const MOST_STALE: u32 = 3;

/// How baskets are placed.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Most baskets under way at once.
    pub concurrency: NonZeroUsize,
    /// Baskets begun each second; as many as possible when `None`.
    pub per_second: Option<f64>,
    /// How long a basket is tried before the load gives up.
    pub patience: Duration,
    /// Every so many baskets, one is looked for in the read model.
    pub watch_every: Option<NonZeroUsize>,
}

/// What was placed just now.
#[derive(Debug, Default)]
pub struct Placed {
    /// One for each basket that was acknowledged.
    pub orders: Vec<Order>,
    /// Whether it was interrupted before the last basket.
    pub interrupted: bool,
}

/// A basket that became an order.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Its id.
    pub id: Uuid,
    /// When it was first sent, Unix milliseconds.
    pub called_ms: i64,
    /// From then to its acknowledgement.
    pub acknowledged: Duration,
    /// From then until a reader of the read model saw it, where somebody looked.
    pub visible: Option<Duration>,
}

/// Why a load cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API does not answer for too long.
    #[error("no answer for {} s ({last}); the same command goes on where this one ended", .patience.as_secs())]
    NoAnswer {
        /// How long was waited.
        patience: Duration,
        /// The last failure.
        last: String,
    },
    /// What answers is not the API.
    #[error("{0}")]
    Api(String),
    /// Fresh order ids are stale.
    #[error(
        "fresh order ids are refused as stale: the clocks of this machine and the broker differ"
    )]
    Clocks,
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] super::journal::Error),
    /// A fault of this program.
    #[error("a basket's task ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Places the baskets that have not ended yet, until all have or `stop` is cancelled; calls under way then are waited
/// for.
///
/// # Errors
///
/// See [`Error`]. What was acknowledged until then is in the journal.
pub async fn place(
    baskets: &[Basket],
    journal: &Arc<Journal>,
    clients: &Clients,
    pace: &Pace,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Placed, Error> {
    // Ends the tasks of a load that cannot go on, without a word to whoever may stop the whole.
    let stop = stop.child_token();
    let slots = Arc::new(Semaphore::new(pace.concurrency.get()));
    let mut turns = pace.per_second.map(turns);
    let mut tasks = JoinSet::new();
    let mut placed = Placed::default();
    let mut failed = None;
    for (index, basket) in baskets.iter().enumerate() {
        let past = journal.history().of(&basket.id);
        if past.end.is_some() {
            continue;
        }
        let turn = async {
            if let Some(turns) = &mut turns {
                turns.tick().await;
            }
            Arc::clone(&slots)
                .acquire_owned()
                .await
                .expect("it is never closed")
        };
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            slot = turn => slot,
        };
        let placing = Placing {
            basket: basket.clone(),
            journal: Arc::clone(journal),
            clients: clients.clone(),
            patience: pace.patience,
            progress: Arc::clone(progress),
            stop: stop.clone(),
        };
        let is_watched = pace.watch_every.is_some_and(|every| index % every == 0);
        tasks.spawn(async move {
            let began = Instant::now();
            let placed = placing.run(past).await?;
            drop(slot);
            let Some((mut order, version)) = placed else {
                return Ok(None);
            };
            if is_watched {
                order.visible = placing.visible(order.id, version, began).await;
            }
            Ok(Some(order))
        });
        while let Some(ended) = tasks.try_join_next() {
            placed.take(ended?, &mut failed, &stop);
        }
    }
    placed.interrupted = stop.is_cancelled();
    while let Some(ended) = tasks.join_next().await {
        placed.take(ended?, &mut failed, &stop);
    }
    placed.interrupted |= stop.is_cancelled();
    failed.map_or(Ok(placed), Err)
}

impl Placed {
    /// The first failure is the one that is told, and ends the rest.
    fn take(
        &mut self,
        ended: Result<Option<Order>, Error>,
        failed: &mut Option<Error>,
        stop: &CancellationToken,
    ) {
        match ended {
            Ok(order) => self.orders.extend(order),
            Err(error) => {
                stop.cancel();
                failed.get_or_insert(error);
            }
        }
    }
}

fn turns(per_second: f64) -> Interval {
    // Turns that were missed are made up for: the rate holds over the whole load.
    interval(Duration::from_secs_f64(1.0 / per_second))
}

/// One basket on its way.
struct Placing {
    basket: Basket,
    journal: Arc<Journal>,
    clients: Clients,
    patience: Duration,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Placing {
    /// The order and its version; `None` when the basket became none, or was interrupted.
    async fn run(&self, mut past: Past) -> Result<Option<(Order, u64)>, Error> {
        let (began, called_ms) = (Instant::now(), unix_ms());
        let mut backoff = Backoff::default();
        let mut stale = 0;
        loop {
            let lines = acceptable(&self.basket, &past.refused_lines);
            if lines.is_empty() {
                self.refused("it has no acceptable line".to_owned()).await?;
                return Ok(None);
            }
            let order_id = self.order_id(&mut past).await?;
            let answer = self
                .clients
                .orders
                .clone()
                .place_order(request(self.order(order_id, &lines)))
                .await;
            let status = match answer {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    self.acknowledged(order_id, &lines, &answer).await?;
                    let acknowledged = began.elapsed();
                    let order = Order {
                        id: order_id,
                        called_ms,
                        acknowledged,
                        visible: None,
                    };
                    return Ok(Some((order, answer.version)));
                }
                Err(status) => status,
            };
            match refusal(&status) {
                Refusal::Lines(refused) => {
                    if !self.without(&lines, refused, &mut past).await? {
                        self.refused(retry::describe(&status)).await?;
                        return Ok(None);
                    }
                }
                Refusal::Stale if stale < MOST_STALE => {
                    stale += 1;
                    past.order_id = None;
                }
                Refusal::Stale => return Err(Error::Clocks),
                Refusal::Basket(reason) => {
                    self.refused(reason).await?;
                    return Ok(None);
                }
                Refusal::Api => return Err(Error::Api(self.clients.failed(&status).to_string())),
                Refusal::Unanswered if began.elapsed() > self.patience => {
                    return Err(Error::NoAnswer {
                        patience: self.patience,
                        last: retry::describe(&status),
                    });
                }
                Refusal::Unanswered => {
                    if !self.pause(&mut backoff, &status).await {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The id under which the basket is sent, in the journal before that.
    async fn order_id(&self, past: &mut Past) -> Result<Uuid, Error> {
        if let Some(order_id) = past.order_id {
            return Ok(order_id);
        }
        let order_id = Uuid::now_v7();
        self.journal
            .record(vec![Fact::Chosen {
                basket: self.basket.id.clone(),
                order_id,
            }])
            .await?;
        past.order_id = Some(order_id);
        Ok(order_id)
    }

    fn order(&self, order_id: Uuid, lines: &[&Line]) -> PlaceOrderRequest {
        PlaceOrderRequest {
            order_id: order_id.to_string(),
            customer_id: self.basket.customer_id.clone(),
            contact: Some(self.basket.contact()),
            lines: lines.iter().map(|line| line.order_line()).collect(),
            currency: CURRENCY.to_owned(),
            wait: PlaceOrderWait::Created.into(),
        }
    }

    async fn acknowledged(
        &self,
        order_id: Uuid,
        lines: &[&Line],
        answer: &PlaceOrderResponse,
    ) -> Result<(), Error> {
        let fact = Fact::Acknowledged {
            basket: self.basket.id.clone(),
            order_id,
            status: answer.status().as_str_name().to_owned(),
            version: answer.version,
            lines: lines.len(),
            cents: lines.iter().map(|line| line.amount_cents).sum(),
        };
        self.journal.record(vec![fact]).await?;
        self.progress.step();
        Ok(())
    }

    async fn refused(&self, reason: String) -> Result<(), Error> {
        self.journal
            .record(vec![Fact::Refused {
                basket: self.basket.id.clone(),
                reason,
            }])
            .await?;
        self.progress.step();
        Ok(())
    }

    /// The basket goes on without the lines that were refused; false when none of those was sent.
    async fn without(
        &self,
        sent: &[&Line],
        refused: BTreeMap<usize, String>,
        past: &mut Past,
    ) -> Result<bool, Error> {
        let mut facts = Vec::new();
        for (index, reason) in refused {
            let Some(line) = sent.get(index) else {
                continue;
            };
            past.refused_lines.insert(line.number, reason.clone());
            facts.push(Fact::LineRefused {
                basket: self.basket.id.clone(),
                line: line.number,
                sku: line.sku.clone(),
                reason,
            });
        }
        let is_shorter = !facts.is_empty();
        if is_shorter {
            self.journal.record(facts).await?;
        }
        Ok(is_shorter)
    }

    /// Waits before the same call is made again; false when there is no more time for that.
    async fn pause(&self, backoff: &mut Backoff, status: &Status) -> bool {
        self.progress
            .note(&format!("waiting: {}", retry::describe(status)));
        tokio::select! {
            () = tokio::time::sleep(backoff.next(status)) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// From `began` until a reader of the read model has seen the order; `None` when none has within the patience.
    async fn visible(&self, order_id: Uuid, version: u64, began: Instant) -> Option<Duration> {
        let read = GetOrderRequest {
            order_id: order_id.to_string(),
            min_version: version,
            min_position: None,
        };
        let mut backoff = Backoff::default();
        loop {
            match self
                .clients
                .query
                .clone()
                .get_order(request(read.clone()))
                .await
            {
                Ok(_) => return Some(began.elapsed()),
                Err(status) if retry::may_pass(&status) && began.elapsed() < self.patience => {
                    if !self.pause(&mut backoff, &status).await {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }
}

fn acceptable<'a>(basket: &'a Basket, refused: &BTreeMap<u64, String>) -> Vec<&'a Line> {
    basket
        .lines
        .iter()
        .filter(|line| !refused.contains_key(&line.number))
        .collect()
}

fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
