//! The public edge: gRPC and REST on one port.
//!
//! gRPC calls are forwarded to the services as they are, undecoded ([`forward`]). REST calls become calls of the same
//! methods, with the canonical JSON of the same messages ([`rest`]), and are described by an OpenAPI document. Reflection
//! and health are the gateway's own; a service is as healthy as the peer behind it.

mod forward;
mod rest;

use std::net::SocketAddr;

use chassis::config::Peers;
use chassis::grpc::{Limits, Peer, Server, server};
use chassis::{Component, Process};
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::query::v1::query_service_client::QueryServiceClient;

const NAME: &str = "gateway";
/// Name of the peer that takes orders.
pub const ORDERS: &str = "orders";
/// Name of the peer that keeps the stock.
pub const INVENTORY: &str = "inventory";
/// Name of the peer that answers reads.
pub const QUERY: &str = "query";
const ORDER_SERVICE: &str = "ordermesh.orders.v1.OrderService";
const INVENTORY_SERVICE: &str = "ordermesh.inventory.v1.InventoryService";
const QUERY_SERVICE: &str = "ordermesh.query.v1.QueryService";

/// The gateway: its port is open, but not served yet.
#[derive(Debug)]
pub struct Gateway {
    server: Server,
    peers: [(&'static str, Peer); 3],
}

impl Gateway {
    /// Opens the public port. Nothing but their health is asked of the peers before the first call; calls of them are
    /// counted by `process`.
    ///
    /// # Errors
    ///
    /// The address is in use or not ours.
    pub async fn bind(
        public: SocketAddr,
        peers: &Peers,
        process: &Process,
    ) -> Result<Self, server::Error> {
        let reach =
            |name, addresses: &[_]| Peer::connect_lazy(name, addresses).measured_by(process);
        let orders = reach(ORDERS, &peers.orders);
        let inventory = reach(INVENTORY, &peers.inventory);
        // Reads may be repeated.
        let query = reach(QUERY, &peers.query).retrying();

        let api = rest::Api {
            orders: OrderServiceClient::new(orders.clone()),
            inventory: InventoryServiceClient::new(inventory.clone()),
            query: QueryServiceClient::new(query.clone()),
        };
        let server = Server::bind(NAME, public)
            .await?
            .add_forwarded(
                ORDER_SERVICE,
                forward::routes(ORDER_SERVICE, orders.clone()),
                &orders,
            )
            .add_forwarded(
                INVENTORY_SERVICE,
                forward::routes(INVENTORY_SERVICE, inventory.clone()),
                &inventory,
            )
            .add_forwarded(
                QUERY_SERVICE,
                forward::routes(QUERY_SERVICE, query.clone()),
                &query,
            )
            .add_rest(rest::routes(api), rest::problem::translate);
        Ok(Self {
            server,
            peers: [(ORDERS, orders), (INVENTORY, inventory), (QUERY, query)],
        })
    }

    /// Replaces the default limits of the public port.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self {
            server: self.server.with_limits(limits),
            ..self
        }
    }

    /// The address that was bound: the port is never 0.
    pub const fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Serves until the process shuts down. It is ready while each of the peers named by `remote` serves. Those of this
    /// process are left out: their health is that of the whole process, the gateway included.
    ///
    /// # Errors
    ///
    /// The metrics are registered already, or the contracts cannot be served by reflection.
    pub fn serve(self, process: &Process, remote: &[&str]) -> Result<(), server::Error> {
        let component = process.readiness().component(NAME);
        self.server.serve(process)?;
        component.ready();
        let mut followed = self.peers.to_vec();
        followed.retain(|(name, _)| remote.contains(name));
        process.spawn_beside("gateway readiness", follow(followed, component));
        Ok(())
    }
}

/// Keeps the readiness in step with what the peers say of their health. Never ends.
async fn follow(peers: Vec<(&'static str, Peer)>, component: Component) {
    let mut followed: Vec<_> = peers
        .iter()
        .map(|(name, peer)| (*name, peer.serving()))
        .collect();
    loop {
        let missing = followed
            .iter_mut()
            .filter_map(|(name, serving)| (!*serving.borrow_and_update()).then_some(*name))
            .next();
        match missing {
            Some(name) => component.not_ready(format!("{name} does not serve")),
            None => component.ready(),
        }
        if followed.is_empty() {
            return std::future::pending().await;
        }
        let changes = followed
            .iter_mut()
            .map(|(_, serving)| Box::pin(serving.changed()));
        // The senders live as long as the peers do.
        let _ = futures::future::select_all(changes).await;
    }
}
