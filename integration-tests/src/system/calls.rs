//! Calls of a client, and the orders that a test places.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use chassis::grpc::Peer;
use contracts::inventory::v1::AdjustStockRequest;
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{
    Address, CancelOrderRequest, CancelOrderResponse, Contact, OrderLine, OrderStatus,
    PlaceOrderRequest, PlaceOrderResponse,
};
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::{GetOrderRequest, GetStockRequest, GetStockResponse, OrderView};
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::{
    Behaviour, Faults, LedgerPayment, ListPaymentsRequest, SetBehaviourRequest,
};
use futures::StreamExt as _;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::System;
use crate::eventually::eventually;

/// Partners without faults.
pub const FAULTLESS: Behaviour = Behaviour {
    decline_percent: 0,
    refuse_percent: 0,
    seed: 0,
    delivery_ms: 50,
    refund_refuse_percent: 0,
    provider: None,
    carrier: None,
};

/// A partner that is down.
pub const OUTAGE: Faults = Faults {
    outage: true,
    hang_percent: 0,
    error_percent: 0,
    slow_percent: 0,
    slow_ms: 0,
    reply_lost_percent: 0,
};

/// A payment provider that is down.
pub const PROVIDER_OUTAGE: Behaviour = Behaviour {
    provider: Some(OUTAGE),
    ..FAULTLESS
};

impl System {
    /// Runs a future on the system's runtime.
    pub fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    /// Spawns a task beside the test.
    pub fn spawn_on<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(task)
    }

    /// A channel to the public port.
    pub fn channel(&self) -> Channel {
        self.connect(self.public)
    }

    fn connect(&self, address: SocketAddr) -> Channel {
        let _inside = self.runtime.enter();
        Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .timeout(Duration::from_secs(15))
            .connect_lazy()
    }

    /// Places an order over gRPC.
    ///
    /// # Errors
    ///
    /// The status of the API.
    pub fn place(&self, request: PlaceOrderRequest) -> Result<PlaceOrderResponse, Box<Status>> {
        self.block_on(OrderServiceClient::new(self.channel()).place_order(request))
            .map(tonic::Response::into_inner)
            .map_err(Box::new)
    }

    /// Adds pieces to the stock of a product.
    pub fn stock(&self, sku: &str, delta: i64) {
        let request = AdjustStockRequest {
            sku: sku.into(),
            adjustment_id: String::new(),
            delta,
        };
        self.block_on(InventoryServiceClient::new(self.channel()).adjust_stock(request))
            .unwrap_or_else(|status| panic!("{sku} {delta}: {status}"));
    }

    /// Adds pieces to the stock of many products at once.
    pub fn stock_all(&self, pieces: BTreeMap<String, i64>) {
        let client = InventoryServiceClient::new(self.channel());
        let calls = futures::stream::iter(pieces).map(|(sku, delta)| {
            let mut client = client.clone();
            async move {
                let request = AdjustStockRequest {
                    sku,
                    adjustment_id: String::new(),
                    delta,
                };
                client.adjust_stock(request).await
            }
        });
        let results: Vec<_> = self.block_on(calls.buffer_unordered(128).collect());
        for result in results {
            result.unwrap_or_else(|status| panic!("stock: {status}"));
        }
    }

    /// The order in the read model, at least at `min_version`.
    ///
    /// # Errors
    ///
    /// The status of the API.
    pub fn order(&self, order_id: &str, min_version: u64) -> Result<OrderView, Box<Status>> {
        let request = GetOrderRequest {
            order_id: order_id.into(),
            min_version,
            min_position: None,
        };
        self.block_on(QueryServiceClient::new(self.channel()).get_order(request))
            .map(|found| found.into_inner().order.unwrap_or_default())
            .map_err(Box::new)
    }

    /// The stock of a product in the read model.
    pub fn stock_of(&self, sku: &str) -> GetStockResponse {
        let request = GetStockRequest {
            sku: sku.into(),
            min_version: 0,
        };
        self.block_on(QueryServiceClient::new(self.channel()).get_stock(request))
            .unwrap_or_else(|status| panic!("{sku}: {status}"))
            .into_inner()
    }

    /// Waits until an order has this status.
    pub fn wait_for_status(&self, order_id: &str, status: OrderStatus) -> OrderView {
        eventually(&format!("{order_id} is {}", status.as_str_name()), || {
            self.order(order_id, 0)
                .ok()
                .filter(|order| order.status() == status)
        })
    }

    /// Sets the behaviour of the payment provider and the carrier.
    pub fn behave(&self, behaviour: Behaviour) {
        let request = SetBehaviourRequest {
            behaviour: Some(behaviour),
        };
        self.block_on(SandboxServiceClient::new(self.connect(self.sandbox)).set_behaviour(request))
            .expect("the sandbox answers");
    }

    /// Cancels an order of [`order_of`]'s customer.
    ///
    /// # Errors
    ///
    /// The status of the API.
    pub fn cancel(&self, order_id: &str) -> Result<CancelOrderResponse, Box<Status>> {
        self.cancel_as("ada", order_id)
    }

    /// Cancels an order in the name of a customer.
    ///
    /// # Errors
    ///
    /// The status of the API.
    pub fn cancel_as(
        &self,
        customer_id: &str,
        order_id: &str,
    ) -> Result<CancelOrderResponse, Box<Status>> {
        let request = CancelOrderRequest {
            order_id: order_id.into(),
            customer_id: customer_id.into(),
        };
        self.block_on(OrderServiceClient::new(self.channel()).cancel_order(request))
            .map(tonic::Response::into_inner)
            .map_err(Box::new)
    }

    /// The payment provider's ledger, in the order in which it was written.
    pub fn ledger(&self) -> Vec<LedgerPayment> {
        let mut client = SandboxServiceClient::new(self.connect(self.sandbox));
        self.block_on(async {
            let entries = client.list_payments(ListPaymentsRequest {}).await?;
            let entries = entries.into_inner().collect::<Vec<_>>().await;
            entries.into_iter().collect::<Result<Vec<_>, Status>>()
        })
        .unwrap_or_else(|status| panic!("the ledger: {status}"))
    }

    /// A connection as services use it among each other: a failure has one code, whichever side detects it.
    pub fn peer(&self, address: SocketAddr) -> Peer {
        let _inside = self.runtime.enter();
        let address = address.to_string().parse().expect("an address");
        Peer::connect_lazy("the api", &[address])
    }
}

/// An order of these (product, pieces) at 1.50 each, with a fresh id.
pub fn order_of(lines: &[(&str, u32)]) -> PlaceOrderRequest {
    PlaceOrderRequest {
        order_id: Uuid::now_v7().to_string(),
        customer_id: "ada".into(),
        contact: Some(Contact {
            email: "ada@example.org".into(),
            phone: String::new(),
            address: Some(Address {
                name: "Ada".into(),
                street: "1 Byron Lane".into(),
                postal_code: "10115".into(),
                city: "Berlin".into(),
                country: "DE".into(),
            }),
        }),
        lines: lines
            .iter()
            .map(|(sku, quantity)| OrderLine {
                sku: (*sku).into(),
                quantity: *quantity,
                unit_price: 150,
                discount: 0,
                description: String::new(),
            })
            .collect(),
        currency: "EUR".into(),
        wait: 0,
    }
}
