//! The public entry point: gRPC and REST on one port.
//!
//! The gateway forwards gRPC calls to the services without decoding them ([`forward`]). It translates REST calls into
//! calls of the same methods, with the canonical JSON of the same messages ([`rest`]); an OpenAPI document describes
//! them. It serves reflection and health itself and reports each service with the health of its peer.

mod forward;
mod rest;

use std::net::SocketAddr;

use chassis::config::Peers;
use chassis::grpc::{Limits, Peer, Server, server};
use chassis::{Component, Process};
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::inventory::v1::inventory_service_server;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::order_service_server;
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::query_service_server;

const NAME: &str = "gateway";
/// Name of the peer with the order service.
pub const ORDERS: &str = "orders";
/// Name of the peer with the inventory service.
pub const INVENTORY: &str = "inventory";
/// Name of the peer with the query service.
pub const QUERY: &str = "query";

/// The gateway with an open port that is not served yet.
#[derive(Debug)]
pub struct Gateway {
    server: Server,
    peers: [(&'static str, Peer); 3],
}

impl Gateway {
    /// Opens the public port. Before the first call, only the health of the peers is requested. The metrics of
    /// `process` count the calls to the peers.
    ///
    /// # Errors
    ///
    /// The address is in use or does not belong to this host.
    pub async fn bind(
        public: SocketAddr,
        peers: &Peers,
        process: &Process,
    ) -> Result<Self, server::Error> {
        let connect =
            |name, addresses: &[_]| Peer::connect_lazy(name, addresses).measured_by(process);
        let orders = connect(ORDERS, &peers.orders);
        let inventory = connect(INVENTORY, &peers.inventory);
        // Reads are idempotent.
        let query = connect(QUERY, &peers.query).retrying();

        let api = rest::Api {
            orders: OrderServiceClient::new(orders.clone()),
            inventory: InventoryServiceClient::new(inventory.clone()),
            query: QueryServiceClient::new(query.clone()),
        };
        let server = Server::bind(NAME, public)
            .await?
            .add_forwarded(
                order_service_server::SERVICE_NAME,
                forward::routes(order_service_server::SERVICE_NAME, orders.clone()),
                &orders,
            )
            .add_forwarded(
                inventory_service_server::SERVICE_NAME,
                forward::routes(inventory_service_server::SERVICE_NAME, inventory.clone()),
                &inventory,
            )
            .add_forwarded(
                query_service_server::SERVICE_NAME,
                forward::routes(query_service_server::SERVICE_NAME, query.clone()),
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

    /// The bound address; the port is never 0.
    pub const fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Serves until the process shuts down. The gateway is ready while every peer in `remote` serves. Peers in the same
    /// process do not belong in `remote`: their health is that of the process, which includes the gateway.
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
        process.spawn_detached("gateway readiness", follow_peers(followed, component));
        Ok(())
    }
}

/// Keeps the readiness of the gateway in step with the health of the peers. Never returns.
async fn follow_peers(peers: Vec<(&'static str, Peer)>, component: Component) {
    let mut followed: Vec<_> = peers
        .iter()
        .map(|(name, peer)| (*name, peer.serving()))
        .collect();
    loop {
        let unavailable = followed
            .iter_mut()
            .filter_map(|(name, serving)| (!*serving.borrow_and_update()).then_some(*name))
            .next();
        match unavailable {
            Some(name) => component.not_ready(format!("{name} does not serve")),
            None => component.ready(),
        }
        if followed.is_empty() {
            return std::future::pending().await;
        }
        let changes = followed
            .iter_mut()
            .map(|(_, serving)| Box::pin(serving.changed()));
        // The peers own the senders, so `changed` cannot fail.
        let _ = futures::future::select_all(changes).await;
    }
}
