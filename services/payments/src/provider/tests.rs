//! The provider against the sandbox, and against partners that give no definite answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chassis::grpc::Peer;
use contracts::provider::v1::payment_provider_server::{PaymentProvider, PaymentProviderServer};
use contracts::provider::v1::{ChargeResponse, RefundResponse, VoidResponse};
use contracts::sandbox::v1::Behaviour;
use sandbox::{Config, Sandbox};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Response;
use tonic::service::Routes;
use tonic::transport::Server;

use super::*;

const FIRST: Attempt = Attempt {
    number: 1,
    may_have_run: false,
};
const AGAIN: Attempt = Attempt {
    number: 2,
    may_have_run: true,
};

fn peer(address: &str) -> Peer {
    Peer::connect_lazy("sandbox", &[address.parse().expect("an address")])
}

/// A provider at a server of `routes`; the server lives as long as the test.
async fn at(routes: Routes) -> Provider {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = Server::builder().add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Provider::new(peer(&address.to_string()), Duration::from_secs(10))
}

async fn at_sandbox(decline_percent: u32) -> (tempfile::TempDir, Provider) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let behaviour = Behaviour {
        decline_percent,
        ..Default::default()
    };
    let config = Config {
        ledger: folder.path().into(),
        behaviour,
    };
    let sandbox = Sandbox::open(config).expect("the ledgers open");
    (folder, at(sandbox.routes()).await)
}

fn euros(minor_units: i64) -> Money {
    Money {
        minor_units,
        currency: "EUR".into(),
    }
}

fn charge() -> Effect {
    Effect::Charge {
        amount: euros(5),
        customer_id: "ada".into(),
    }
}

fn void() -> Effect {
    Effect::Void {
        charge_key: "o/charge/1".into(),
    }
}

fn refund(attempt: u32, minor_units: i64) -> Effect {
    Effect::Refund {
        attempt,
        charge_key: "o/charge/1".into(),
        amount: euros(minor_units),
    }
}

#[tokio::test]
async fn a_charge_is_made_and_found_again() {
    let (_folder, provider) = at_sandbox(0).await;
    let answer = provider
        .perform("o/charge/1", &charge(), AGAIN)
        .await
        .expect("not found: charged");
    let Command::RecordCharged(charged) = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!(charged.attempt, 1);
    assert!(!charged.provider_reference.is_empty());
    for attempt in [FIRST, AGAIN] {
        assert_eq!(
            provider.perform("o/charge/1", &charge(), attempt).await,
            Ok(answer.clone())
        );
    }
    // Too late to void: the answer is the charge.
    assert_eq!(
        provider.perform("o/void/1", &void(), FIRST).await,
        Ok(answer)
    );
}

#[tokio::test]
async fn a_declined_charge_says_why() {
    let (_folder, provider) = at_sandbox(100).await;
    for attempt in [FIRST, AGAIN] {
        let answer = provider
            .perform("o/charge/1", &charge(), attempt)
            .await
            .expect("definite");
        let Command::RecordChargeDeclined(declined) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(declined.attempt, 1);
        assert!(!declined.reason.is_empty());
    }
}

#[tokio::test]
async fn a_void_bars_the_charge_also_of_a_former_owner() {
    let (_folder, provider) = at_sandbox(0).await;
    let voided = Command::RecordChargeVoided(RecordChargeVoided { attempt: 1 });
    assert_eq!(
        provider.perform("o/void/1", &void(), FIRST).await,
        Ok(voided.clone())
    );
    assert_eq!(
        provider.perform("o/void/1", &void(), AGAIN).await,
        Ok(voided.clone())
    );
    assert_eq!(
        provider.perform("o/charge/1", &charge(), FIRST).await,
        Ok(voided.clone())
    );
    assert_eq!(
        provider.perform("o/charge/1", &charge(), AGAIN).await,
        Ok(voided)
    );
}

#[tokio::test]
async fn a_refund_is_made_once_and_found_again() {
    let (_folder, provider) = at_sandbox(0).await;
    provider
        .perform("o/charge/1", &charge(), FIRST)
        .await
        .expect("charged");
    for attempt in [FIRST, AGAIN] {
        let answer = provider
            .perform("o/refund/1", &refund(1, 4), attempt)
            .await
            .expect("definite");
        let Command::RecordRefundRefused(refused) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(refused.attempt, 1);
    }
    for attempt in [AGAIN, FIRST, AGAIN] {
        let answer = provider
            .perform("o/refund/2", &refund(2, 5), attempt)
            .await
            .expect("definite");
        let Command::RecordRefunded(refunded) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(refunded.attempt, 2);
    }
}

/// Answers every call alike and counts the look-ups and the others.
#[derive(Clone, Default)]
struct Scripted {
    lookup: ChargeStatus,
    refund_found: RefundStatus,
    call: Option<Code>,
    lookups: Arc<AtomicU32>,
    calls: Arc<AtomicU32>,
}

impl Scripted {
    fn counts(&self) -> (u32, u32) {
        (
            self.lookups.load(Ordering::SeqCst),
            self.calls.load(Ordering::SeqCst),
        )
    }

    async fn called<T: Default>(&self) -> Result<Response<T>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.call {
            None => Ok(Response::new(T::default())),
            // As a partner that takes the call and never answers.
            Some(Code::Ok) => std::future::pending().await,
            Some(code) => Err(Status::new(code, "scripted")),
        }
    }
}

#[tonic::async_trait]
impl PaymentProvider for Scripted {
    async fn charge(&self, _: Request<ChargeRequest>) -> Result<Response<ChargeResponse>, Status> {
        self.called().await
    }

    async fn refund(&self, _: Request<RefundRequest>) -> Result<Response<RefundResponse>, Status> {
        self.called().await
    }

    async fn lookup(&self, _: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(LookupResponse {
            charge: self.lookup.into(),
            refund: self.refund_found.into(),
            ..Default::default()
        }))
    }

    async fn void(&self, _: Request<VoidRequest>) -> Result<Response<VoidResponse>, Status> {
        self.called().await
    }
}

async fn at_scripted(scripted: &Scripted) -> Provider {
    at(Routes::new(PaymentProviderServer::new(scripted.clone()))).await
}

#[tokio::test]
async fn in_progress_is_unknown_and_not_repeated() {
    let scripted = Scripted {
        lookup: ChargeStatus::InProgress,
        ..Default::default()
    };
    let provider = at_scripted(&scripted).await;
    for (key, effect) in [("o/charge/1", charge()), ("o/refund/1", refund(1, 5))] {
        let unknown = provider
            .perform(key, &effect, AGAIN)
            .await
            .expect_err("in progress");
        assert!(!unknown.partner_fault, "{unknown}");
    }
    assert_eq!(scripted.counts(), (2, 0));
}

#[tokio::test]
async fn only_a_repetition_is_looked_up_and_only_not_found_is_repeated() {
    let scripted = Scripted {
        lookup: ChargeStatus::NotFound,
        ..Default::default()
    };
    let provider = at_scripted(&scripted).await;
    for (attempt, counts) in [(FIRST, (0, 1)), (AGAIN, (1, 2))] {
        // The scripted answer says nothing.
        let unknown = provider
            .perform("o/charge/1", &charge(), attempt)
            .await
            .expect_err("nothing");
        assert!(unknown.partner_fault);
        assert_eq!(scripted.counts(), counts);
    }
    let scripted = Scripted {
        refund_found: RefundStatus::Refunded,
        ..Default::default()
    };
    let provider = at_scripted(&scripted).await;
    assert!(
        provider
            .perform("o/refund/1", &refund(1, 5), AGAIN)
            .await
            .is_ok()
    );
    assert_eq!(scripted.counts(), (1, 0));
}

#[tokio::test]
async fn an_error_is_unknown_and_never_declined() {
    for (code, partner_fault) in [
        (Code::Unavailable, true),
        (Code::Internal, true),
        (Code::DeadlineExceeded, true),
        (Code::InvalidArgument, false),
        (Code::FailedPrecondition, false),
    ] {
        let scripted = Scripted {
            call: Some(code),
            ..Default::default()
        };
        let provider = at_scripted(&scripted).await;
        for effect in [charge(), void(), refund(1, 5)] {
            let unknown = provider
                .perform("key", &effect, FIRST)
                .await
                .expect_err("an error");
            assert_eq!(unknown.partner_fault, partner_fault, "{unknown}");
        }
    }
}

#[tokio::test]
async fn a_silent_partner_is_given_up_after_the_deadline() {
    let scripted = Scripted {
        call: Some(Code::Ok),
        ..Default::default()
    };
    let provider = at_scripted(&scripted).await;
    // Connect first: the deadline is for the call.
    provider.lookup("key").await.expect("look-ups are answered");
    let hasty = Provider {
        deadline: Duration::from_millis(50),
        ..provider
    };
    let unknown = hasty
        .perform("o/charge/1", &charge(), FIRST)
        .await
        .expect_err("silence");
    assert!(unknown.partner_fault);
    // Either end may notice first, each in its own words.
    let noticed =
        ["the deadline has passed", "Timeout expired"].map(|words| unknown.reason.contains(words));
    assert!(noticed.contains(&true), "{unknown}");
}
