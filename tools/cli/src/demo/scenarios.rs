//! One scenario for each way in which an order can end: the partners fail, or the customer cancels, at the right
//! moment. A scenario waits for observed events, never for a fixed time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use contracts::Service;
use contracts::orders::v1::{
    Address, CancelOrderRequest, Contact, EndReason, OrderLine, OrderStatus, PlaceOrderRequest,
};
use contracts::query::v1::OrderView;
use contracts::sandbox::v1::{Behaviour, Faults, ListPaymentsRequest, SetBehaviourRequest};
use engine::Cluster;
use load::baskets::CURRENCY;
use load::verify::AcknowledgedOrder;
use orders::reasons::TOO_LATE;
use platform_client::order_watch::Watch;
use platform_client::retry::{self, Backoff};
use platform_client::{Clients, Sandbox, request};
use serde::Serialize;
use terminal::progress::Progress;
use terminal::{Align, Table, money, status};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use uuid::Uuid;

use super::event_tap::EventTap;
use super::stock::{self, Product};

const CUSTOMER: &str = "ada";
const SKU: &str = "mug";
const UNKNOWN_SKU: &str = "unicorn";
const PIECES: u32 = 2;
const UNIT_PRICE: i64 = 1_250;
const TOTAL: i64 = UNIT_PRICE * PIECES as i64;
/// Enough for every order here.
const STOCK: i64 = 100;

/// Delivery time of a parcel whose customer cancels while it is on its way.
const SLOW_DELIVERY_MS: u32 = 3_000;
const QUICK_DELIVERY_MS: u32 = 50;

/// Time limit of one scenario.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The result of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Ending {
    /// Name of the scenario.
    pub name: &'static str,
    /// The order of the scenario.
    pub order_id: Uuid,
    /// Whether the order ended as expected.
    pub passed: bool,
    /// The end of the order, or the error.
    pub detail: String,
}

/// The results of all scenarios.
pub struct ScenarioResults {
    /// In the order in which the scenarios ran.
    pub endings: Vec<Ending>,
    /// The orders of the scenarios.
    pub acknowledged: Vec<AcknowledgedOrder>,
}

/// Runs the scenarios on a platform that has no other users meanwhile.
pub struct ScenarioRunner {
    clients: Clients,
    sandbox: Sandbox,
    cluster: Arc<Cluster>,
}

impl ScenarioRunner {
    /// Uses a running platform.
    pub const fn new(clients: Clients, sandbox: Sandbox, cluster: Arc<Cluster>) -> Self {
        Self {
            clients,
            sandbox,
            cluster,
        }
    }

    /// Runs all scenarios, one after the other.
    ///
    /// # Errors
    ///
    /// The stock cannot be filled. Later errors are in the result of their scenario.
    pub async fn run_all(&self) -> anyhow::Result<ScenarioResults> {
        let mug = Product {
            sku: SKU.to_owned(),
            wanted: STOCK,
            pieces: STOCK,
        };
        stock::fill(vec![mug], &self.clients, &Progress::new("stock", 1)).await?;
        let endings = vec![
            self.run("delivered", Self::delivered).await,
            self.run("out of stock", Self::out_of_stock).await,
            self.run("payment declined", Self::declined).await,
            self.run("undeliverable", Self::undeliverable).await,
            self.run("cancelled before payment", Self::cancelled_before_payment)
                .await,
            self.run("cancelled after payment", Self::cancelled_after_payment)
                .await,
            self.run("cancelled too late", Self::cancelled_too_late)
                .await,
            self.run("expired", Self::expired).await,
        ];
        let acknowledged = endings.iter().map(|ending| AcknowledgedOrder {
            order_id: ending.order_id,
            cents: TOTAL,
        });
        Ok(ScenarioResults {
            acknowledged: acknowledged.collect(),
            endings,
        })
    }

    /// Runs one scenario with its own order; the partners are healthy before and after it.
    async fn run(
        &self,
        name: &'static str,
        scenario: impl AsyncFnOnce(&Self, Uuid) -> anyhow::Result<String>,
    ) -> Ending {
        let order_id = Uuid::now_v7();
        let result = timeout(TIMEOUT, async {
            self.set_behaviour(healthy_partners()).await?;
            scenario(self, order_id).await
        })
        .await;
        let result = result.unwrap_or_else(|_| {
            let seconds = TIMEOUT.as_secs();
            Err(anyhow!("the end was not reached within {seconds} s"))
        });
        // Outside the time limit, so that a scenario that exceeds it does not affect the next one.
        let restored = self.set_behaviour(healthy_partners()).await;
        let result = result.and_then(|ending_text| restored.map(|()| ending_text));
        let (passed, detail) = match result {
            Ok(ending_text) => (true, ending_text),
            Err(error) => (false, format!("{error:#}")),
        };
        Ending {
            name,
            order_id,
            passed,
            detail,
        }
    }

    async fn delivered(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.place(order_id, SKU).await?;
        self.expect_end(order_id, OrderStatus::Delivered, EndReason::Unspecified, 0)
            .await
    }

    async fn out_of_stock(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.place(order_id, UNKNOWN_SKU).await?;
        self.expect_end(order_id, OrderStatus::Rejected, EndReason::OutOfStock, 0)
            .await
    }

    async fn declined(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.set_behaviour(Behaviour {
            decline_percent: 100,
            ..healthy_partners()
        })
        .await?;
        self.place(order_id, SKU).await?;
        let reason = EndReason::PaymentDeclined;
        self.expect_end(order_id, OrderStatus::Rejected, reason, 0)
            .await
    }

    async fn undeliverable(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.set_behaviour(Behaviour {
            refuse_percent: 100,
            ..healthy_partners()
        })
        .await?;
        self.place(order_id, SKU).await?;
        let reason = EndReason::Undeliverable;
        self.expect_end(order_id, OrderStatus::Rejected, reason, TOTAL)
            .await
    }

    /// The provider has an outage: the charge is still being retried when the customer cancels, and is voided.
    async fn cancelled_before_payment(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.set_behaviour(provider_outage()).await?;
        self.place(order_id, SKU).await?;
        self.wait_for_status(order_id, OrderStatus::AwaitingPayment)
            .await?;
        let payments = self.tap(Service::Payments).await?;
        self.cancel(order_id).await?;
        // Until that event, a recovered provider could still receive the charge.
        payments
            .wait_for(order_id, "payment_cancel_requested")
            .await?;
        self.set_behaviour(healthy_partners()).await?;
        let reason = EndReason::Customer;
        let ending_text = self
            .expect_end(order_id, OrderStatus::Cancelled, reason, 0)
            .await?;
        self.check_never_charged(order_id).await?;
        Ok(format!("{ending_text}, never charged"))
    }

    /// The carrier has an outage: the parcel is not booked when the customer cancels, and never will be.
    async fn cancelled_after_payment(&self, order_id: Uuid) -> anyhow::Result<String> {
        let outage = Faults {
            outage: true,
            ..Faults::default()
        };
        self.set_behaviour(Behaviour {
            carrier: Some(outage),
            ..healthy_partners()
        })
        .await?;
        self.place(order_id, SKU).await?;
        self.wait_for_status(order_id, OrderStatus::Confirmed)
            .await?;
        let shipping = self.tap(Service::Shipping).await?;
        self.cancel(order_id).await?;
        // Until that event, a recovered carrier could still receive the booking.
        shipping
            .wait_for(order_id, "shipment_cancel_requested")
            .await?;
        self.set_behaviour(healthy_partners()).await?;
        let reason = EndReason::Customer;
        self.expect_end(order_id, OrderStatus::Cancelled, reason, TOTAL)
            .await
    }

    /// The parcel is on its way: the cancellation is refused, and the parcel is delivered.
    async fn cancelled_too_late(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.set_behaviour(Behaviour {
            delivery_ms: SLOW_DELIVERY_MS,
            ..healthy_partners()
        })
        .await?;
        self.place(order_id, SKU).await?;
        self.wait_for_status(order_id, OrderStatus::Shipped).await?;
        let answer = self.try_cancel(order_id).await;
        let refusal = match answer {
            Ok(()) => bail!("a shipped order was cancelled"),
            Err(status) if retry::reason(&status) == TOO_LATE => status.message().to_owned(),
            Err(status) => return Err(self.clients.failed(&status)),
        };
        let ending_text = self
            .expect_end(order_id, OrderStatus::Delivered, EndReason::Unspecified, 0)
            .await?;
        Ok(format!("{TOO_LATE}: {refusal}; then {ending_text}"))
    }

    /// The provider has an outage that is longer than an order waits for its payment.
    async fn expired(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.set_behaviour(provider_outage()).await?;
        let payments = self.tap(Service::Payments).await?;
        self.place(order_id, SKU).await?;
        self.wait_for_status(order_id, OrderStatus::Cancelling)
            .await?;
        payments
            .wait_for(order_id, "payment_cancel_requested")
            .await?;
        self.set_behaviour(healthy_partners()).await?;
        let ending_text = self
            .expect_end(order_id, OrderStatus::Rejected, EndReason::Expired, 0)
            .await?;
        self.check_never_charged(order_id).await?;
        Ok(format!("{ending_text}, never charged"))
    }

    async fn place(&self, order_id: Uuid, sku: &str) -> anyhow::Result<()> {
        let order = order(order_id, sku);
        let place = async || {
            let mut orders = self.clients.orders.clone();
            orders.place_order(request(order.clone())).await.map(drop)
        };
        with_retries(place)
            .await
            .map_err(|status| self.clients.failed(&status))
    }

    async fn cancel(&self, order_id: Uuid) -> anyhow::Result<()> {
        self.try_cancel(order_id)
            .await
            .map_err(|status| self.clients.failed(&status))
    }

    async fn try_cancel(&self, order_id: Uuid) -> Result<(), Status> {
        let request_body = CancelOrderRequest {
            order_id: order_id.to_string(),
            customer_id: CUSTOMER.to_owned(),
        };
        with_retries(async || {
            let mut orders = self.clients.orders.clone();
            orders
                .cancel_order(request(request_body.clone()))
                .await
                .map(drop)
        })
        .await
    }

    async fn set_behaviour(&self, behaviour: Behaviour) -> anyhow::Result<()> {
        let setting = SetBehaviourRequest {
            behaviour: Some(behaviour),
        };
        let mut sandbox = self.sandbox.connect();
        let set = sandbox.set_behaviour(request(setting)).await;
        set.map(drop).map_err(|status| self.sandbox.failed(&status))
    }

    async fn tap(&self, service: Service) -> anyhow::Result<EventTap> {
        EventTap::at_end(&self.cluster, service).await
    }

    /// Fails if the order was ever charged, even if the charge was refunded.
    async fn check_never_charged(&self, order_id: Uuid) -> anyhow::Result<()> {
        let mut sandbox = self.sandbox.connect();
        let listing = sandbox.list_payments(request(ListPaymentsRequest {}));
        let failed = |status| self.sandbox.failed(&status);
        let mut entries = listing.await.map_err(failed)?.into_inner();
        let key = format!("{order_id}/");
        while let Some(entry) = entries.message().await.map_err(failed)? {
            if entry.kind == "charged" && entry.idempotency_key.starts_with(&key) {
                bail!("it was charged under {}", entry.idempotency_key);
            }
        }
        Ok(())
    }

    /// Watches an order until it has the wanted status.
    async fn wait_for_status(
        &self,
        order_id: Uuid,
        wanted: OrderStatus,
    ) -> anyhow::Result<OrderView> {
        let mut last = OrderView::default();
        let mut watch = Watch::new(self.clients.clone(), order_id, 0);
        while let Some(change) = watch.next().await? {
            last = change.order.context("change without an order")?;
            if last.status() == wanted {
                return Ok(last);
            }
        }
        bail!(
            "{} instead of {}",
            status(last.status(), last.end_reason()),
            status(wanted, EndReason::Unspecified)
        )
    }

    /// Watches an order to its end and checks status, reason and refund. Returns the end as text.
    async fn expect_end(
        &self,
        order_id: Uuid,
        wanted: OrderStatus,
        reason: EndReason,
        refunded: i64,
    ) -> anyhow::Result<String> {
        let order = self.wait_for_status(order_id, wanted).await?;
        let end = status(order.status(), order.end_reason());
        if (order.end_reason(), order.refunded) != (reason, refunded) {
            bail!("{end}, with {} given back", money(order.refunded, CURRENCY));
        }
        Ok(match refunded {
            0 => end,
            refunded => format!("{end}, {} given back", money(refunded, CURRENCY)),
        })
    }
}

/// The results as a table for people.
pub fn table(endings: &[Ending]) -> Table {
    let mut table = Table::new([("", Align::Left), ("", Align::Left), ("", Align::Left)]);
    for ending in endings {
        let mark = if ending.passed { '✓' } else { '✗' };
        table.row([
            format!("{mark} {}", ending.name),
            ending.order_id.to_string(),
            ending.detail.clone(),
        ]);
    }
    table
}

/// Repeats a retryable call. [`TIMEOUT`] bounds both the retries and the scenario.
async fn with_retries(call: impl AsyncFn() -> Result<(), Status>) -> Result<(), Status> {
    let began = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Err(status) if retry::is_retryable(&status) && began.elapsed() < TIMEOUT => {
                sleep(backoff.next(&status)).await;
            }
            answer => return answer,
        }
    }
}

/// No faults, and quick deliveries.
fn healthy_partners() -> Behaviour {
    Behaviour {
        delivery_ms: QUICK_DELIVERY_MS,
        ..Behaviour::default()
    }
}

fn provider_outage() -> Behaviour {
    Behaviour {
        provider: Some(Faults {
            outage: true,
            ..Faults::default()
        }),
        ..healthy_partners()
    }
}

fn order(order_id: Uuid, sku: &str) -> PlaceOrderRequest {
    PlaceOrderRequest {
        order_id: order_id.to_string(),
        customer_id: CUSTOMER.to_owned(),
        contact: Some(Contact {
            email: "ada@example.com".to_owned(),
            phone: String::new(),
            address: Some(Address {
                name: "Ada Lovelace".to_owned(),
                street: "12 St James's Square".to_owned(),
                postal_code: "SW1Y 4JH".to_owned(),
                city: "London".to_owned(),
                country: "GB".to_owned(),
            }),
        }),
        lines: vec![OrderLine {
            sku: sku.to_owned(),
            quantity: PIECES,
            unit_price: UNIT_PRICE,
            discount: 0,
            description: String::new(),
        }],
        currency: CURRENCY.to_owned(),
        wait: 0,
    }
}
