//! Processes that are replaced one after the other under load: no call needs more than one retry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use chassis::grpc::Peer;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use harness::eventually;
use harness::system::{SERVICES, System, free_port, order_of};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

/// Number of clients, each of which places one order after the other.
const CLIENTS: usize = 16;
/// Orders between two replacements.
const ORDERS_BETWEEN_CHANGES: usize = 150;

#[test]
fn two_processes_of_orders_are_replaced_one_after_the_other() {
    let mut system = System::new();
    let addresses = [free_port(), free_port()];
    let names = ["orders-1", "orders-2"];
    let listen = addresses.map(|address| [("ORDERMESH_ORDERS_LISTEN", address.to_string())]);
    let both = addresses.map(|address| address.to_string()).join(",");
    system.set("ORDERMESH_ORDERS", both);
    let others: Vec<_> = SERVICES
        .into_iter()
        .filter(|service| *service != "orders")
        .collect();
    for service in &others {
        system.start(service);
    }
    for (name, listen) in names.iter().zip(&listen) {
        system.start_as(name, "orders", listen);
    }
    for name in others.iter().chain(&names) {
        system.wait_until_ready(name);
    }
    system.stock("mug", 1_000_000);

    let load = Load::start(&system, &[system.public]);
    for (name, listen) in names.iter().zip(&listen) {
        load.wait_for_orders();
        assert!(
            system.terminate(name).success(),
            "{}",
            system.log_tail(name)
        );
        // The partitions of the stopped process wait for it.
        system.start_as(name, "orders", listen);
        system.wait_until_ready(name);
    }
    load.wait_for_orders();
    load.end(&system);
    system.audit_at_rest(None);
}

#[test]
fn two_gateways_are_replaced_one_after_the_other() {
    let mut system = System::new();
    for service in SERVICES {
        system.start(service);
    }
    let names = ["gateway", "gateway-2"];
    let addresses = [system.public, free_port()];
    let listen = addresses.map(|address| [("ORDERMESH_PUBLIC", address.to_string())]);
    system.start_as(names[1], "gateway", &listen[1]);
    for name in SERVICES.iter().chain(&names[1..]) {
        system.wait_until_ready(name);
    }
    system.stock("mug", 1_000_000);

    let load = Load::start(&system, &addresses);
    for (name, listen) in names.iter().zip(&listen) {
        load.wait_for_orders();
        assert!(
            system.terminate(name).success(),
            "{}",
            system.log_tail(name)
        );
        load.wait_for_orders();
        system.start_as(name, "gateway", listen);
        system.wait_until_ready(name);
    }
    load.wait_for_orders();
    load.end(&system);
    system.audit_at_rest(None);
}

/// Running clients.
struct Load {
    over: Arc<AtomicBool>,
    placed: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<(), Status>>>,
}

impl Load {
    /// Starts clients that use these gateways in turn. A failed call is retried once, at the next gateway.
    fn start(system: &System, gateways: &[SocketAddr]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let placed = Arc::new(AtomicUsize::new(0));
        let gateways: Vec<_> = gateways
            .iter()
            .map(|address| system.peer(*address))
            .collect();
        let client = |number| {
            let (over, placed, gateways) = (over.clone(), placed.clone(), gateways.clone());
            async move {
                let mut turn = number;
                while !over.load(Ordering::Relaxed) {
                    place(&gateways, turn).await?;
                    placed.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                }
                Ok(())
            }
        };
        let clients =
            system.block_on(async { (0..CLIENTS).map(client).map(tokio::spawn).collect() });
        Self {
            over,
            placed,
            clients,
        }
    }

    /// Waits for more orders. Asserts that no client has failed.
    fn wait_for_orders(&self) {
        let before = self.placed.load(Ordering::Relaxed);
        eventually("some more orders are placed", || {
            let working = self.clients.iter().all(|client| !client.is_finished());
            assert!(working, "a client has given up");
            (self.placed.load(Ordering::Relaxed) >= before + ORDERS_BETWEEN_CHANGES).then_some(())
        });
    }

    fn end(self, system: &System) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            let outcome = system.block_on(client).expect("no client panics");
            outcome.expect("every order is placed");
        }
    }
}

async fn place(gateways: &[Peer], turn: usize) -> Result<(), Status> {
    let order = order_of(&[("mug", 1)]);
    let client = |turn: usize| OrderServiceClient::new(gateways[turn % gateways.len()].clone());
    match client(turn).place_order(order.clone()).await {
        Ok(_) => Ok(()),
        Err(first) => {
            let passes = matches!(first.code(), Code::Unavailable | Code::DeadlineExceeded);
            assert!(passes, "not worth a retry: {first}");
            client(turn + 1).place_order(order).await.map(drop)
        }
    }
}
