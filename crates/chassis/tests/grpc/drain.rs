//! The shutdown of a server.

use std::process::ExitCode;
use std::time::Duration;

use chassis::grpc::{Limits, Peer};
use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::{ListBookingsRequest, ListPaymentsRequest};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::fake::{Fake, TIMEOUT, serve, serve_with};

#[tokio::test]
async fn streams_end_at_the_shutdown_and_do_not_delay_it() {
    let (address, process) = serve(&Fake::default()).await;
    let mut client = SandboxServiceClient::new(Peer::connect_lazy("sandbox", &[address]));
    let mut entries = client
        .list_payments(ListPaymentsRequest {})
        .await
        .expect("it begins")
        .into_inner();
    assert!(entries.next().await.expect("there is one entry").is_ok());
    let (code, end) = tokio::join!(process.stop(TIMEOUT), entries.next());
    assert_eq!(code, ExitCode::SUCCESS);
    let status = end.expect("it says why").expect_err("it is no entry");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the server is shutting down")
    );
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn a_slow_call_delays_the_shutdown_only_for_the_grace_period() {
    let fake = Fake::default();
    let limits = Limits {
        grace: Duration::from_millis(50),
        ..Limits::default()
    };
    let (address, process) = serve_with(&fake, limits).await;
    let call = tokio::spawn(async move {
        SandboxServiceClient::new(Peer::connect_lazy("sandbox", &[address]))
            .list_bookings(ListBookingsRequest {})
            .await
            .map(drop)
    });
    fake.begun.notified().await;
    assert_eq!(process.stop(TIMEOUT).await, ExitCode::SUCCESS);
    let outcome = call.await.expect("the call does not panic");
    let status = outcome.expect_err("it never answers");
    assert_eq!(status.message(), "the server is shutting down");
}
