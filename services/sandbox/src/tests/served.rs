//! A sandbox behind a free port.

use std::net::SocketAddr;
use std::path::Path;

use contracts::carrier::v1::carrier_client::CarrierClient;
use contracts::provider::v1::payment_provider_client::PaymentProviderClient;
use contracts::sandbox::v1::Behaviour;
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};

use crate::{Config, Sandbox};

pub(super) const BEHAVIOUR: Behaviour = Behaviour {
    decline_percent: 0,
    refuse_percent: 0,
    seed: 7,
    delivery_ms: 3_600_000,
    refund_refuse_percent: 0,
    provider: None,
    carrier: None,
};

/// A sandbox behind a free port.
pub(super) struct Served {
    pub(super) sandbox: Sandbox,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Served {
    pub(super) async fn start(ledger: &Path, behaviour: Behaviour) -> Self {
        let config = Config {
            ledger: ledger.into(),
            behaviour,
        };
        let sandbox = Sandbox::open(config).expect("the ledgers open");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel();
        let server = Server::builder().add_routes(sandbox.routes());
        let server = tokio::spawn(
            server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
                drop(stopped.await)
            }),
        );
        Self {
            sandbox,
            address,
            stop,
            server,
        }
    }

    pub(super) async fn stop(self) {
        self.stop.send(()).expect("the server runs");
        self.server.await.expect("no panic").expect("no error");
        self.sandbox.close().await;
    }

    pub(super) fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        endpoint
            .expect("an address")
            .tcp_nodelay(true)
            .connect_lazy()
    }

    pub(super) fn provider(&self) -> PaymentProviderClient<Channel> {
        PaymentProviderClient::new(self.channel())
    }

    pub(super) fn carrier(&self) -> CarrierClient<Channel> {
        CarrierClient::new(self.channel())
    }

    pub(super) fn control(&self) -> SandboxServiceClient<Channel> {
        SandboxServiceClient::new(self.channel())
    }
}
