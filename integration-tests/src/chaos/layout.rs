//! Addresses, proxies and settings of the processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use super::proxy::{Protocol, Proxy};
use super::stack::Stack;
use super::{REPLICATED, Replica};
use crate::system::{System, free_port};

impl Stack {
    /// Name of the tablespace on the small file system.
    pub(super) fn tablespace(&self) -> Option<&'static str> {
        const NAME: &str = "small";
        let disk = self.disk.as_ref()?;
        let folder = disk.join("data");
        let url = self
            .direct
            .database
            .replace("://ordermesh@", "://postgres@");
        let made = Command::new("psql")
            .args(["-q", "-X", "-A", "-t", "-c"])
            .arg(format!(
                "SELECT spcname FROM pg_tablespace WHERE spcname = '{NAME}'"
            ))
            .arg(&url)
            .output()
            .expect("psql can be run");
        if String::from_utf8_lossy(&made.stdout).trim() == NAME {
            return Some(NAME);
        }
        std::fs::create_dir_all(&folder).ok()?;
        let owned = Command::new("chown").arg("postgres:").arg(&folder).status();
        let sql = format!(
            "CREATE TABLESPACE {NAME} OWNER ordermesh LOCATION '{}'",
            folder.display()
        );
        let made = Command::new("psql")
            .args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-c", &sql])
            .arg(&url)
            .status();
        (owned.is_ok_and(|status| status.success()) && made.is_ok_and(|status| status.success()))
            .then_some(NAME)
    }
}

pub(super) fn sandbox_proxy(stack: &Stack, system: &System, seed: u64) -> Proxy {
    let upstream = system.variable("ORDERMESH_SANDBOX").parse();
    let upstream = upstream.expect("the sandbox has an address");
    Proxy::start(
        stack.runtime.handle(),
        free_port(),
        upstream,
        Protocol::Bytes,
        seed,
    )
}

/// Addresses and proxies of all processes.
pub(super) struct Layout<'a> {
    pub(super) stack: &'a Stack,
    pub(super) seed: u64,
    pub(super) to_orders: BTreeMap<String, Proxy>,
    pub(super) to_sandbox: &'a Proxy,
    pub(super) gateways: [SocketAddr; 2],
}

impl Layout<'_> {
    pub(super) fn replicas(&mut self, system: &mut System) -> BTreeMap<String, Replica> {
        let pair = || [free_port(), free_port()];
        let (orders, inventory, query) = (pair(), pair(), pair());
        for (number, address) in (1..).zip(orders) {
            let runtime = self.stack.runtime.handle();
            let proxy = Proxy::start(runtime, free_port(), address, Protocol::Bytes, self.seed);
            self.to_orders.insert(format!("orders-{number}"), proxy);
        }
        let joined = |addresses: &mut dyn Iterator<Item = SocketAddr>| {
            let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
            addresses.join(",")
        };
        let by_proxy = &mut self.to_orders.values().map(|proxy| proxy.address);
        system.set("ORDERMESH_ORDERS", joined(by_proxy));
        system.set("ORDERMESH_INVENTORY", joined(&mut inventory.into_iter()));
        system.set("ORDERMESH_QUERY", joined(&mut query.into_iter()));
        let mut replicas = BTreeMap::new();
        for service in REPLICATED {
            for index in 0..2 {
                let mut variables = Vec::new();
                match service {
                    "orders" => {
                        variables.push(("ORDERMESH_ORDERS_LISTEN", orders[index].to_string()))
                    }
                    "inventory" => {
                        variables
                            .push(("ORDERMESH_INVENTORY_LISTEN", inventory[index].to_string()));
                    }
                    "query" => {
                        variables.push(("ORDERMESH_QUERY_LISTEN", query[index].to_string()));
                        let url = system.variable("ORDERMESH_DATABASE");
                        variables.push(("ORDERMESH_DATABASE", self.stack.proxied_database(url)));
                    }
                    "gateway" => {
                        variables.push(("ORDERMESH_PUBLIC", self.gateways[index].to_string()))
                    }
                    _ => {
                        let sandbox = self.to_sandbox.address.to_string();
                        variables.push(("ORDERMESH_SANDBOX", sandbox));
                    }
                }
                if let Some(proxy) = self.stack.kafka.get(service) {
                    variables.push(("ORDERMESH_KAFKA", proxy.address.to_string()));
                }
                let replica = Replica { service, variables };
                replicas.insert(format!("{service}-{}", index + 1), replica);
            }
        }
        let sandbox = Replica {
            service: "sandbox",
            variables: Vec::new(),
        };
        replicas.insert("sandbox".to_owned(), sandbox);
        replicas
    }
}
