//! Tests the provider with the sandbox, and with scripted partners that give no definite answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chassis::grpc::Peer;
use contracts::provider::v1::payment_provider_server::{PaymentProvider, PaymentProviderServer};
use contracts::provider::v1::{ChargeResponse, RefundResponse, VoidResponse};
use contracts::sandbox::v1::Behaviour;
use sandbox::{Config, Sandbox};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Response};

use super::*;

const FIRST: Attempt = Attempt {
    number: 1,
    may_have_run: false,
};
const RETRY: Attempt = Attempt {
    number: 2,
    may_have_run: true,
};

fn peer(address: &str) -> Peer {
    Peer::connect_lazy("sandbox", &[address.parse().expect("an address")])
}

/// A provider that calls a server with `routes`. The server runs until the test ends.
async fn provider_at(routes: Routes) -> Provider {
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
    (folder, provider_at(sandbox.routes()).await)
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
async fn a_repeated_charge_has_the_same_result() {
    let (_folder, provider) = at_sandbox(0).await;
    let answer = provider
        .perform("o/charge/1", &charge(), RETRY)
        .await
        .expect("not found: charged");
    let Command::RecordCharged(charged) = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!(charged.attempt, 1);
    assert!(!charged.provider_reference.is_empty());
    for attempt in [FIRST, RETRY] {
        assert_eq!(
            provider.perform("o/charge/1", &charge(), attempt).await,
            Ok(answer.clone())
        );
    }
    // It is too late for a void, so the answer is the charge.
    assert_eq!(
        provider.perform("o/void/1", &void(), FIRST).await,
        Ok(answer)
    );
}

#[tokio::test]
async fn a_declined_charge_has_a_reason() {
    let (_folder, provider) = at_sandbox(100).await;
    for attempt in [FIRST, RETRY] {
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
async fn a_void_also_prevents_the_charge_of_a_former_owner() {
    let (_folder, provider) = at_sandbox(0).await;
    let voided = Command::RecordChargeVoided(RecordChargeVoided { attempt: 1 });
    assert_eq!(
        provider.perform("o/void/1", &void(), FIRST).await,
        Ok(voided.clone())
    );
    assert_eq!(
        provider.perform("o/void/1", &void(), RETRY).await,
        Ok(voided.clone())
    );
    assert_eq!(
        provider.perform("o/charge/1", &charge(), FIRST).await,
        Ok(voided.clone())
    );
    assert_eq!(
        provider.perform("o/charge/1", &charge(), RETRY).await,
        Ok(voided)
    );
}

#[tokio::test]
async fn a_repeated_refund_has_the_same_result() {
    let (_folder, provider) = at_sandbox(0).await;
    provider
        .perform("o/charge/1", &charge(), FIRST)
        .await
        .expect("charged");
    for attempt in [FIRST, RETRY] {
        let answer = provider
            .perform("o/refund/1", &refund(1, 4), attempt)
            .await
            .expect("definite");
        let Command::RecordRefundRefused(refused) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(refused.attempt, 1);
    }
    for attempt in [RETRY, FIRST, RETRY] {
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

/// Answers all calls the same way and counts look-ups and other calls.
#[derive(Clone, Default)]
struct ScriptedProvider {
    lookup: ChargeStatus,
    refund_found: RefundStatus,
    call: Option<Code>,
    lookups: Arc<AtomicU32>,
    calls: Arc<AtomicU32>,
}

impl ScriptedProvider {
    fn counts(&self) -> (u32, u32) {
        (
            self.lookups.load(Ordering::SeqCst),
            self.calls.load(Ordering::SeqCst),
        )
    }

    async fn respond<T: Default>(&self) -> Result<Response<T>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.call {
            None => Ok(Response::new(T::default())),
            // Never answers.
            Some(Code::Ok) => std::future::pending().await,
            Some(code) => Err(Status::new(code, "scripted")),
        }
    }
}

#[tonic::async_trait]
impl PaymentProvider for ScriptedProvider {
    async fn charge(&self, _: Request<ChargeRequest>) -> Result<Response<ChargeResponse>, Status> {
        self.respond().await
    }

    async fn refund(&self, _: Request<RefundRequest>) -> Result<Response<RefundResponse>, Status> {
        self.respond().await
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
        self.respond().await
    }
}

async fn at_scripted(scripted: &ScriptedProvider) -> Provider {
    provider_at(Routes::new(PaymentProviderServer::new(scripted.clone()))).await
}

#[tokio::test]
async fn a_charge_in_progress_is_unknown_and_not_repeated() {
    let scripted = ScriptedProvider {
        lookup: ChargeStatus::InProgress,
        ..Default::default()
    };
    let provider = at_scripted(&scripted).await;
    for (key, effect) in [("o/charge/1", charge()), ("o/refund/1", refund(1, 5))] {
        let unknown = provider
            .perform(key, &effect, RETRY)
            .await
            .expect_err("in progress");
        assert!(!unknown.partner_fault, "{unknown}");
    }
    assert_eq!(scripted.counts(), (2, 0));
}

#[tokio::test]
async fn a_retry_looks_up_the_key_and_repeats_only_an_unknown_key() {
    let scripted = ScriptedProvider {
        lookup: ChargeStatus::NotFound,
        ..Default::default()
    };
    let provider = at_scripted(&scripted).await;
    for (attempt, counts) in [(FIRST, (0, 1)), (RETRY, (1, 2))] {
        // The scripted response has no result.
        let unknown = provider
            .perform("o/charge/1", &charge(), attempt)
            .await
            .expect_err("nothing");
        assert!(unknown.partner_fault);
        assert_eq!(scripted.counts(), counts);
    }
    let scripted = ScriptedProvider {
        refund_found: RefundStatus::Refunded,
        ..Default::default()
    };
    let provider = at_scripted(&scripted).await;
    assert!(
        provider
            .perform("o/refund/1", &refund(1, 5), RETRY)
            .await
            .is_ok()
    );
    assert_eq!(scripted.counts(), (1, 0));
}

#[tokio::test]
async fn an_error_is_unknown_and_never_declined() {
    for (code, partner_fault) in [(Code::Unavailable, true), (Code::InvalidArgument, false)] {
        let scripted = ScriptedProvider {
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
async fn a_call_without_a_response_ends_at_the_deadline() {
    let scripted = ScriptedProvider {
        call: Some(Code::Ok),
        ..Default::default()
    };
    let provider = at_scripted(&scripted).await;
    // Connect first, so that the deadline covers only the call.
    provider.lookup("key").await.expect("look-ups are answered");
    let short_deadline = Provider {
        deadline: Duration::from_millis(50),
        ..provider
    };
    let unknown = short_deadline
        .perform("o/charge/1", &charge(), FIRST)
        .await
        .expect_err("silence");
    assert!(unknown.partner_fault);
    // Client or server may notice the deadline first; their messages differ.
    let expected =
        ["the deadline has passed", "Timeout expired"].map(|words| unknown.reason.contains(words));
    assert!(expected.contains(&true), "{unknown}");
}
