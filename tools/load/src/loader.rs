//! Places baskets until each has a final answer.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use contracts::orders::v1::{PlaceOrderRequest, PlaceOrderResponse, PlaceOrderWait};
use contracts::query::v1::GetOrderRequest;
use platform_client::retry::{self, Backoff};
use platform_client::{Clients, request};
use terminal::progress::Progress;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::baskets::{Basket, CURRENCY, Line};
use super::journal::{BasketState, Fact, Journal};
use super::refusal::{Refusal, classify};

/// More stale answers than this to fresh ids mean that the clocks differ.
const MAX_STALE_ANSWERS: u32 = 3;

/// Concurrency, rate and time limits of a load.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// Most baskets in flight.
    pub concurrency: NonZeroUsize,
    /// Baskets started each second; as many as possible when `None`.
    pub per_second: Option<f64>,
    /// How long the placing of a basket is retried before the load fails.
    pub patience: Duration,
    /// The time until the read model shows an order is measured for every n-th basket; `None`: for none.
    pub probe_every: Option<NonZeroUsize>,
}

/// The orders that one run placed.
#[derive(Debug, Default)]
pub struct PlacedOrders {
    /// One for each acknowledged basket.
    pub orders: Vec<Order>,
    /// Whether the run was interrupted before the last basket.
    pub interrupted: bool,
}

/// A basket that became an order.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The order id.
    pub id: Uuid,
    /// Time of the first call, in Unix milliseconds.
    pub called_ms: i64,
    /// From the first call to the acknowledgement.
    pub acknowledged: Duration,
    /// From the first call until the read model shows the order; `None` when not measured.
    pub visible: Option<Duration>,
}

/// Why a load cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API does not answer in time.
    #[error("no answer for {} s ({last}); the same command continues where this one stopped", .patience.as_secs())]
    NoAnswer {
        /// How long the call was retried.
        patience: Duration,
        /// The last failure.
        last: String,
    },
    /// The server is not the API, or refuses the client.
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
    /// A task panicked.
    #[error("the task of a basket failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Places the baskets that have no final answer yet, until all have one or `stop` is cancelled. Calls in flight are
/// then awaited.
///
/// # Errors
///
/// See [`Error`]. The orders acknowledged until then are in the journal.
pub async fn place(
    baskets: &[Basket],
    journal: &Arc<Journal>,
    clients: &Clients,
    settings: &LoadSettings,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<PlacedOrders, Error> {
    // A child token: a failed load stops its own tasks without cancelling the token of the caller.
    let stop = stop.child_token();
    let slots = Arc::new(Semaphore::new(settings.concurrency.get()));
    let mut ticks = settings.per_second.map(rate_ticks);
    let mut tasks = JoinSet::new();
    let mut placed = PlacedOrders::default();
    let mut failed = None;
    for (index, basket) in baskets.iter().enumerate() {
        let state = journal.history().basket(&basket.id);
        if state.result.is_some() {
            continue;
        }
        let next_slot = async {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            Arc::clone(&slots)
                .acquire_owned()
                .await
                .expect("it is never closed")
        };
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            slot = next_slot => slot,
        };
        let task = BasketTask {
            basket: basket.clone(),
            journal: Arc::clone(journal),
            clients: clients.clone(),
            patience: settings.patience,
            progress: Arc::clone(progress),
            stop: stop.clone(),
        };
        let is_probed = settings.probe_every.is_some_and(|every| index % every == 0);
        tasks.spawn(async move {
            let began = Instant::now();
            let placed = task.place(state).await?;
            drop(slot);
            let Some((mut order, version)) = placed else {
                return Ok(None);
            };
            if is_probed {
                order.visible = task.time_to_visible(order.id, version, began).await;
            }
            Ok(Some(order))
        });
        while let Some(ended) = tasks.try_join_next() {
            placed.add(ended?, &mut failed, &stop);
        }
    }
    placed.interrupted = stop.is_cancelled();
    while let Some(ended) = tasks.join_next().await {
        placed.add(ended?, &mut failed, &stop);
    }
    placed.interrupted |= stop.is_cancelled();
    failed.map_or(Ok(placed), Err)
}

impl PlacedOrders {
    /// Adds the result of a task. The first error is kept, and stops the other tasks.
    fn add(
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

fn rate_ticks(per_second: f64) -> Interval {
    // Missed ticks are caught up: the rate holds over the whole load.
    interval(Duration::from_secs_f64(1.0 / per_second))
}

/// The placing of one basket.
struct BasketTask {
    basket: Basket,
    journal: Arc<Journal>,
    clients: Clients,
    patience: Duration,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl BasketTask {
    /// Returns the order and its version; `None` when the basket was refused or the load was interrupted.
    async fn place(&self, mut state: BasketState) -> Result<Option<(Order, u64)>, Error> {
        let (began, called_ms) = (Instant::now(), unix_ms());
        let mut backoff = Backoff::default();
        let mut stale = 0;
        loop {
            let lines = acceptable(&self.basket, &state.refused_lines);
            if lines.is_empty() {
                self.record_refused("it has no acceptable line".to_owned())
                    .await?;
                return Ok(None);
            }
            let order_id = self.choose_order_id(&mut state).await?;
            let answer = self
                .clients
                .orders
                .clone()
                .place_order(request(self.request(order_id, &lines)))
                .await;
            let status = match answer {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    self.record_acknowledged(order_id, &lines, &answer).await?;
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
            match classify(&status) {
                Refusal::Lines(refused) => {
                    if !self.drop_lines(&lines, refused, &mut state).await? {
                        self.record_refused(retry::describe(&status)).await?;
                        return Ok(None);
                    }
                }
                Refusal::Stale if stale < MAX_STALE_ANSWERS => {
                    stale += 1;
                    state.order_id = None;
                }
                Refusal::Stale => return Err(Error::Clocks),
                Refusal::Basket(reason) => {
                    self.record_refused(reason).await?;
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

    /// The order id of the basket. A new id is in the journal before it is used.
    async fn choose_order_id(&self, state: &mut BasketState) -> Result<Uuid, Error> {
        if let Some(order_id) = state.order_id {
            return Ok(order_id);
        }
        let order_id = Uuid::now_v7();
        self.journal
            .record(vec![Fact::Chosen {
                basket: self.basket.id.clone(),
                order_id,
            }])
            .await?;
        state.order_id = Some(order_id);
        Ok(order_id)
    }

    fn request(&self, order_id: Uuid, lines: &[&Line]) -> PlaceOrderRequest {
        PlaceOrderRequest {
            order_id: order_id.to_string(),
            customer_id: self.basket.customer_id.clone(),
            contact: Some(self.basket.contact()),
            lines: lines.iter().map(|line| line.order_line()).collect(),
            currency: CURRENCY.to_owned(),
            wait: PlaceOrderWait::Created.into(),
        }
    }

    async fn record_acknowledged(
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

    async fn record_refused(&self, reason: String) -> Result<(), Error> {
        self.journal
            .record(vec![Fact::Refused {
                basket: self.basket.id.clone(),
                reason,
            }])
            .await?;
        self.progress.step();
        Ok(())
    }

    /// Drops the refused lines from the basket; false when none of them was sent.
    async fn drop_lines(
        &self,
        sent: &[&Line],
        refused: BTreeMap<usize, String>,
        state: &mut BasketState,
    ) -> Result<bool, Error> {
        let mut facts = Vec::new();
        for (index, reason) in refused {
            let Some(line) = sent.get(index) else {
                continue;
            };
            state.refused_lines.insert(line.number, reason.clone());
            facts.push(Fact::LineRefused {
                basket: self.basket.id.clone(),
                line: line.number,
                sku: line.sku.clone(),
                reason,
            });
        }
        let dropped_any = !facts.is_empty();
        if dropped_any {
            self.journal.record(facts).await?;
        }
        Ok(dropped_any)
    }

    /// Waits before a retry; false when the load was stopped meanwhile.
    async fn pause(&self, backoff: &mut Backoff, status: &Status) -> bool {
        self.progress
            .set_message(&format!("waiting: {}", retry::describe(status)));
        tokio::select! {
            () = tokio::time::sleep(backoff.next(status)) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// From `began` until the read model shows the order; `None` when it does not within `patience`.
    async fn time_to_visible(
        &self,
        order_id: Uuid,
        version: u64,
        began: Instant,
    ) -> Option<Duration> {
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
                Err(status) if retry::is_retryable(&status) && began.elapsed() < self.patience => {
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
