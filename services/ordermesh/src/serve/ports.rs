//! The ports of this process, bound before any role starts.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use chassis::admin::Admin;
use chassis::config;
use chassis::grpc::Server;

use super::{Args, Role};

/// All ports of this process, bound before any role starts.
pub(super) struct Ports {
    pub(super) admin: Admin,
    pub(super) orders: Option<Server>,
    pub(super) inventory: Option<Server>,
    pub(super) query: Option<Server>,
    pub(super) sandbox: Option<Server>,
}

impl Ports {
    /// Binds the ports of `roles`.
    ///
    /// # Errors
    ///
    /// A port is in use.
    pub(super) async fn bind(args: &Args, roles: &BTreeSet<Role>) -> anyhow::Result<Self> {
        let server = async |role: Role, name: &'static str, address: SocketAddr| {
            anyhow::Ok(if roles.contains(&role) {
                Some(Server::bind(name, address).await?)
            } else {
                None
            })
        };
        Ok(Self {
            admin: Admin::bind(args.admin.address).await?,
            orders: server(Role::Orders, "orders", args.listen.orders).await?,
            inventory: server(Role::Inventory, "inventory", args.listen.inventory).await?,
            query: server(Role::Query, "query", args.listen.query).await?,
            sandbox: server(Role::Sandbox, "sandbox", args.listen.sandbox).await?,
        })
    }

    /// Addresses of the peers: the bound ports for roles of this process, the configured addresses for the others.
    pub(super) fn peers(&self, args: &Args) -> config::Peers {
        let local = config::Peers::local(&config::Listen {
            orders: bound(self.orders.as_ref(), args.listen.orders),
            inventory: bound(self.inventory.as_ref(), args.listen.inventory),
            query: bound(self.query.as_ref(), args.listen.query),
            sandbox: bound(self.sandbox.as_ref(), args.listen.sandbox),
        });
        let configured = args.peers.clone();
        config::Peers {
            orders: if self.orders.is_some() {
                local.orders
            } else {
                configured.orders
            },
            inventory: if self.inventory.is_some() {
                local.inventory
            } else {
                configured.inventory
            },
            query: if self.query.is_some() {
                local.query
            } else {
                configured.query
            },
            sandbox: if self.sandbox.is_some() {
                local.sandbox
            } else {
                configured.sandbox
            },
        }
    }
}

fn bound(server: Option<&Server>, configured: SocketAddr) -> SocketAddr {
    server.map_or(configured, Server::local_addr)
}
