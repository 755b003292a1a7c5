//! Every way in which an order can end, each brought about by hand: the partners fail at the right moment, and the
//! customer cancels at the right moment. Nothing here waits for time to pass, only for what is seen to happen.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use contracts::Service;
use contracts::orders::v1::{
    Address, CancelOrderRequest, Contact, EndReason, OrderLine, OrderStatus, PlaceOrderRequest,
};
use contracts::query::v1::OrderView;
use contracts::sandbox::v1::{Behaviour, Faults, ListPaymentsRequest, SetBehaviourRequest};
use engine::Cluster;
use orders::reasons::TOO_LATE;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use uuid::Uuid;

use super::event_tap::EventTap;
use super::stock::{self, Product};
use crate::baskets::CURRENCY;
use crate::check::Acknowledged;
use platform_client::order_watch::Watch;
use platform_client::retry::{self, Backoff};
use platform_client::{Clients, Sandbox, request};
use terminal::progress::Progress;
use terminal::{Align, Table, money, status};

const CUSTOMER: &str = "ada";
const SKU: &str = "mug";
const UNKNOWN_SKU: &str = "unicorn";
const PIECES: u32 = 2;
const UNIT_PRICE: i64 = 1_250;
const TOTAL: i64 = UNIT_PRICE * PIECES as i64;
/// Enough for every order here.
const STOCK: i64 = 100;

/// A parcel is this long on its way, while its customer cancels.
const SLOW_DELIVERY_MS: u32 = 3_000;
const QUICK_DELIVERY_MS: u32 = 50;

/// For one ending.
const PATIENCE: Duration = Duration::from_secs(30);

/// What has become of an order that was steered into its ending.
#[derive(Clone, Debug, Serialize)]
pub struct Ending {
    /// What it is called.
    pub name: &'static str,
    /// Its order.
    pub order_id: Uuid,
    /// Whether it ended as it should.
    pub passed: bool,
    /// How it went; or what went wrong.
    pub detail: String,
}

/// What came of all of them.
pub struct Played {
    /// In the order in which they were played.
    pub endings: Vec<Ending>,
    /// Their orders.
    pub acknowledged: Vec<Acknowledged>,
    /// Pieces that were put into stock.
    pub pieces: i64,
}

/// Where the endings are played: nobody else uses it meanwhile.
pub struct Stage {
    clients: Clients,
    sandbox: Sandbox,
    cluster: Arc<Cluster>,
}

impl Stage {
    /// On a running platform.
    pub const fn new(clients: Clients, sandbox: Sandbox, cluster: Arc<Cluster>) -> Self {
        Self {
            clients,
            sandbox,
            cluster,
        }
    }

    /// Plays all endings, one after the other.
    ///
    /// # Errors
    ///
    /// There is no stock for them. What goes wrong later is told by its ending.
    pub async fn play(&self) -> anyhow::Result<Played> {
        let mug = Product {
            sku: SKU.to_owned(),
            wanted: STOCK,
            pieces: STOCK,
        };
        let pieces = stock::put_in(vec![mug], &self.clients, &Progress::new("stock", 1)).await?;
        let endings = vec![
            self.ending("delivered", Self::delivered).await,
            self.ending("out of stock", Self::out_of_stock).await,
            self.ending("payment declined", Self::declined).await,
            self.ending("undeliverable", Self::undeliverable).await,
            self.ending("cancelled before payment", Self::cancelled_before_payment)
                .await,
            self.ending("cancelled after payment", Self::cancelled_after_payment)
                .await,
            self.ending("cancelled too late", Self::cancelled_too_late)
                .await,
            self.ending("expired", Self::expired).await,
        ];
        let acknowledged = endings.iter().map(|ending| Acknowledged {
            order_id: ending.order_id,
            cents: TOTAL,
        });
        Ok(Played {
            acknowledged: acknowledged.collect(),
            endings,
            pieces,
        })
    }

    /// One ending, of an order of its own; partners that do as they are asked before and after.
    async fn ending(
        &self,
        name: &'static str,
        play: impl AsyncFnOnce(&Self, Uuid) -> anyhow::Result<String>,
    ) -> Ending {
        let order_id = Uuid::now_v7();
        let played = async {
            self.behave(quiet()).await?;
            let outcome = play(self, order_id).await;
            self.behave(quiet()).await?;
            outcome
        };
        let (passed, detail) = match timeout(PATIENCE, played).await {
            Ok(Ok(outcome)) => (true, outcome),
            Ok(Err(error)) => (false, format!("{error:#}")),
            Err(_) => (
                false,
                format!("not reached within {} s", PATIENCE.as_secs()),
            ),
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
        self.ends(order_id, OrderStatus::Delivered, EndReason::Unspecified, 0)
            .await
    }

    async fn out_of_stock(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.place(order_id, UNKNOWN_SKU).await?;
        self.ends(order_id, OrderStatus::Rejected, EndReason::OutOfStock, 0)
            .await
    }

    async fn declined(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.behave(Behaviour {
            decline_percent: 100,
            ..quiet()
        })
        .await?;
        self.place(order_id, SKU).await?;
        let reason = EndReason::PaymentDeclined;
        self.ends(order_id, OrderStatus::Rejected, reason, 0).await
    }

    async fn undeliverable(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.behave(Behaviour {
            refuse_percent: 100,
            ..quiet()
        })
        .await?;
        self.place(order_id, SKU).await?;
        let reason = EndReason::Undeliverable;
        self.ends(order_id, OrderStatus::Rejected, reason, TOTAL)
            .await
    }

    /// The provider is out of service: the charge is still being tried when the customer cancels, and is voided.
    async fn cancelled_before_payment(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.behave(provider_outage()).await?;
        self.place(order_id, SKU).await?;
        self.reaches(order_id, OrderStatus::AwaitingPayment).await?;
        let payments = self.overhear(Service::Payments).await?;
        self.cancel(order_id).await?;
        // Before that, a provider that is back could still be asked to charge.
        payments.hears(order_id, "payment_cancel_requested").await?;
        self.behave(quiet()).await?;
        let reason = EndReason::Customer;
        let outcome = self
            .ends(order_id, OrderStatus::Cancelled, reason, 0)
            .await?;
        self.was_never_charged(order_id).await?;
        Ok(format!("{outcome}, never charged"))
    }

    /// The carrier is out of service: the parcel is not booked yet when the customer cancels, and never will be.
    async fn cancelled_after_payment(&self, order_id: Uuid) -> anyhow::Result<String> {
        let outage = Faults {
            outage: true,
            ..Faults::default()
        };
        self.behave(Behaviour {
            carrier: Some(outage),
            ..quiet()
        })
        .await?;
        self.place(order_id, SKU).await?;
        self.reaches(order_id, OrderStatus::Confirmed).await?;
        let shipping = self.overhear(Service::Shipping).await?;
        self.cancel(order_id).await?;
        // Before that, a carrier that is back could still be asked for the parcel.
        shipping
            .hears(order_id, "shipment_cancel_requested")
            .await?;
        self.behave(quiet()).await?;
        let reason = EndReason::Customer;
        self.ends(order_id, OrderStatus::Cancelled, reason, TOTAL)
            .await
    }

    /// The parcel is on its way: the customer is told so, and gets it.
    async fn cancelled_too_late(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.behave(Behaviour {
            delivery_ms: SLOW_DELIVERY_MS,
            ..quiet()
        })
        .await?;
        self.place(order_id, SKU).await?;
        self.reaches(order_id, OrderStatus::Shipped).await?;
        let asked = self.ask_to_cancel(order_id).await;
        let refusal = match asked {
            Ok(()) => bail!("a shipped order was cancelled"),
            Err(status) if retry::reason(&status) == TOO_LATE => status.message().to_owned(),
            Err(status) => return Err(self.clients.failed(&status)),
        };
        let outcome = self
            .ends(order_id, OrderStatus::Delivered, EndReason::Unspecified, 0)
            .await?;
        Ok(format!("{TOO_LATE}: {refusal}; then {outcome}"))
    }

    /// The provider is out of service for longer than an order waits for its payment.
    async fn expired(&self, order_id: Uuid) -> anyhow::Result<String> {
        self.behave(provider_outage()).await?;
        let payments = self.overhear(Service::Payments).await?;
        self.place(order_id, SKU).await?;
        self.reaches(order_id, OrderStatus::Cancelling).await?;
        payments.hears(order_id, "payment_cancel_requested").await?;
        self.behave(quiet()).await?;
        let outcome = self
            .ends(order_id, OrderStatus::Rejected, EndReason::Expired, 0)
            .await?;
        self.was_never_charged(order_id).await?;
        Ok(format!("{outcome}, never charged"))
    }

    async fn place(&self, order_id: Uuid, sku: &str) -> anyhow::Result<()> {
        let order = order(order_id, sku);
        let place = async || {
            let mut orders = self.clients.orders.clone();
            orders.place_order(request(order.clone())).await.map(drop)
        };
        insisting(place)
            .await
            .map_err(|status| self.clients.failed(&status))
    }

    async fn cancel(&self, order_id: Uuid) -> anyhow::Result<()> {
        self.ask_to_cancel(order_id)
            .await
            .map_err(|status| self.clients.failed(&status))
    }

    async fn ask_to_cancel(&self, order_id: Uuid) -> Result<(), Status> {
        let asked = CancelOrderRequest {
            order_id: order_id.to_string(),
            customer_id: CUSTOMER.to_owned(),
        };
        insisting(async || {
            let mut orders = self.clients.orders.clone();
            orders.cancel_order(request(asked.clone())).await.map(drop)
        })
        .await
    }

    async fn behave(&self, behaviour: Behaviour) -> anyhow::Result<()> {
        let setting = SetBehaviourRequest {
            behaviour: Some(behaviour),
        };
        let mut sandbox = self.sandbox.connect();
        let set = sandbox.set_behaviour(request(setting)).await;
        set.map(drop).map_err(|status| self.sandbox.failed(&status))
    }

    async fn overhear(&self, service: Service) -> anyhow::Result<EventTap> {
        EventTap::from_now_on(&self.cluster, service).await
    }

    /// The order's money has not moved at all, not even there and back.
    async fn was_never_charged(&self, order_id: Uuid) -> anyhow::Result<()> {
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

    /// Watches an order until it has a status.
    async fn reaches(&self, order_id: Uuid, wanted: OrderStatus) -> anyhow::Result<OrderView> {
        let mut last = OrderView::default();
        let mut watch = Watch::new(self.clients.clone(), order_id, 0);
        while let Some(change) = watch.next().await? {
            last = change.order.context("a change names its order")?;
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

    /// Watches an order to its end, and tells what came of it when that is the right one.
    async fn ends(
        &self,
        order_id: Uuid,
        wanted: OrderStatus,
        reason: EndReason,
        refunded: i64,
    ) -> anyhow::Result<String> {
        let order = self.reaches(order_id, wanted).await?;
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

/// The endings as people read them.
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

/// Repeats a call that may be repeated; the ending's own patience bounds it.
async fn insisting(call: impl AsyncFn() -> Result<(), Status>) -> Result<(), Status> {
    let began = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Err(status) if retry::may_pass(&status) && began.elapsed() < PATIENCE => {
                sleep(backoff.next(&status)).await;
            }
            answer => return answer,
        }
    }
}

/// Partners that do as they are asked, at once.
fn quiet() -> Behaviour {
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
        ..quiet()
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
