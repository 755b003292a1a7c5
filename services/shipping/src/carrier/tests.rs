//! Tests the carrier with the sandbox, and with scripted partners that give no definite answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chassis::grpc::Peer;
use contracts::carrier::v1::carrier_server::{Carrier as CarrierService, CarrierServer};
use contracts::carrier::v1::{BookResponse, VoidResponse};
use contracts::orders::v1::Address;
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

const DEADLINES: Deadlines = Deadlines {
    call: Duration::from_secs(10),
    tracking_wait: Duration::from_secs(60),
};

fn peer(address: &str) -> Peer {
    Peer::connect_lazy("sandbox", &[address.parse().expect("an address")])
}

/// A carrier that calls a server with `routes`. The server runs until the test ends.
async fn carrier_at(routes: Routes) -> Carrier {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = Server::builder().add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Carrier::new(peer(&address.to_string()), DEADLINES)
}

async fn at_sandbox(refuse_percent: u32, delivery_ms: u32) -> (tempfile::TempDir, Carrier) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let behaviour = Behaviour {
        refuse_percent,
        delivery_ms,
        ..Default::default()
    };
    let config = Config {
        ledger: folder.path().into(),
        behaviour,
    };
    let sandbox = Sandbox::open(config).expect("the ledgers open");
    (folder, carrier_at(sandbox.routes()).await)
}

fn book() -> Effect {
    let address = Address {
        name: "Ada".into(),
        street: "Main Street 1".into(),
        postal_code: "12345".into(),
        city: "Town".into(),
        country: "DE".into(),
    };
    let contact = Contact {
        address: Some(address),
        ..Default::default()
    };
    Effect::Book { contact, pieces: 3 }
}

fn void() -> Effect {
    Effect::Void {
        booking_key: "o/book/1".into(),
    }
}

fn track() -> Effect {
    Effect::Track {
        booking_key: "o/book/1".into(),
    }
}

#[tokio::test]
async fn a_parcel_is_booked_once_and_tracked_until_delivery() {
    let (_folder, carrier) = at_sandbox(0, 50).await;
    let answer = carrier
        .perform("o/book/1", &book(), RETRY)
        .await
        .expect("not found: booked");
    assert!(matches!(answer, Command::RecordBooked(_)), "{answer:?}");
    for attempt in [FIRST, RETRY] {
        assert_eq!(
            carrier.perform("o/book/1", &book(), attempt).await,
            Ok(answer.clone())
        );
    }
    let delivered = Command::RecordDelivered(RecordDelivered {});
    assert_eq!(
        carrier.perform("o/track/1", &track(), FIRST).await,
        Ok(delivered)
    );
    // After the delivery, a repeated booking and a void still return the booking.
    assert_eq!(
        carrier.perform("o/book/1", &book(), RETRY).await,
        Ok(answer.clone())
    );
    assert_eq!(
        carrier.perform("o/void/1", &void(), FIRST).await,
        Ok(answer)
    );
}

#[tokio::test]
async fn a_parcel_in_transit_is_unknown_without_a_fault_of_the_carrier() {
    let (_folder, carrier) = at_sandbox(0, 3_600_000).await;
    carrier
        .perform("o/book/1", &book(), FIRST)
        .await
        .expect("booked");
    let short_wait = Deadlines {
        tracking_wait: Duration::from_millis(20),
        ..DEADLINES
    };
    let carrier = Carrier {
        deadlines: short_wait,
        ..carrier
    };
    let unknown = carrier
        .perform("o/track/1", &track(), FIRST)
        .await
        .expect_err("on its way");
    assert!(!unknown.partner_fault, "{unknown}");
}

#[tokio::test]
async fn a_refused_booking_has_a_reason() {
    let (_folder, carrier) = at_sandbox(100, 0).await;
    for attempt in [FIRST, RETRY] {
        let answer = carrier
            .perform("o/book/1", &book(), attempt)
            .await
            .expect("definite");
        let Command::RecordBookingRefused(refused) = answer else {
            panic!("{answer:?}")
        };
        assert!(!refused.reason.is_empty());
    }
}

#[tokio::test]
async fn a_void_also_prevents_the_booking_of_a_former_owner() {
    let (_folder, carrier) = at_sandbox(0, 0).await;
    let voided = Command::RecordBookingVoided(RecordBookingVoided {});
    assert_eq!(
        carrier.perform("o/void/1", &void(), FIRST).await,
        Ok(voided.clone())
    );
    assert_eq!(
        carrier.perform("o/void/1", &void(), RETRY).await,
        Ok(voided.clone())
    );
    assert_eq!(
        carrier.perform("o/book/1", &book(), FIRST).await,
        Ok(voided.clone())
    );
    assert_eq!(
        carrier.perform("o/book/1", &book(), RETRY).await,
        Ok(voided)
    );
    let unknown = carrier
        .perform("o/track/1", &track(), FIRST)
        .await
        .expect_err("no parcel");
    assert!(unknown.partner_fault);
}

#[tokio::test]
async fn the_tracking_wait_is_limited_to_that_of_the_contract() {
    let (_folder, carrier) = at_sandbox(0, 0).await;
    carrier
        .perform("o/book/1", &book(), FIRST)
        .await
        .expect("booked");
    let long_wait = Deadlines {
        tracking_wait: Duration::from_secs(7200),
        ..DEADLINES
    };
    let unused = peer("127.0.0.1:1");
    let carrier = Carrier {
        client: carrier.client,
        ..Carrier::new(unused, long_wait)
    };
    let delivered = Command::RecordDelivered(RecordDelivered {});
    assert_eq!(
        carrier.perform("o/track/1", &track(), FIRST).await,
        Ok(delivered)
    );
}

/// Answers all calls the same way and counts look-ups and other calls.
#[derive(Clone, Default)]
struct ScriptedCarrier {
    lookup: BookingStatus,
    call: Option<Code>,
    book: BookResponse,
    lookups: Arc<AtomicU32>,
    calls: Arc<AtomicU32>,
}

impl ScriptedCarrier {
    fn counts(&self) -> (u32, u32) {
        (
            self.lookups.load(Ordering::SeqCst),
            self.calls.load(Ordering::SeqCst),
        )
    }

    async fn respond<T>(&self, answer: T) -> Result<Response<T>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.call {
            None => Ok(Response::new(answer)),
            // Never answers.
            Some(Code::Ok) => std::future::pending().await,
            Some(code) => Err(Status::new(code, "scripted")),
        }
    }
}

#[tonic::async_trait]
impl CarrierService for ScriptedCarrier {
    async fn book(&self, _: Request<BookRequest>) -> Result<Response<BookResponse>, Status> {
        self.respond(self.book.clone()).await
    }

    async fn lookup(&self, _: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let status = self.lookup.into();
        Ok(Response::new(LookupResponse {
            status,
            ..Default::default()
        }))
    }

    async fn void(&self, _: Request<VoidRequest>) -> Result<Response<VoidResponse>, Status> {
        self.respond(VoidResponse::default()).await
    }
}

async fn at_scripted(scripted: &ScriptedCarrier) -> Carrier {
    carrier_at(Routes::new(CarrierServer::new(scripted.clone()))).await
}

#[tokio::test]
async fn a_booking_in_progress_is_unknown_and_not_repeated() {
    let scripted = ScriptedCarrier {
        lookup: BookingStatus::InProgress,
        ..Default::default()
    };
    let carrier = at_scripted(&scripted).await;
    let unknown = carrier
        .perform("o/book/1", &book(), RETRY)
        .await
        .expect_err("in progress");
    assert!(!unknown.partner_fault, "{unknown}");
    assert_eq!(scripted.counts(), (1, 0));
}

#[tokio::test]
async fn a_retry_looks_up_the_key_and_repeats_only_an_unknown_key() {
    let scripted = ScriptedCarrier {
        lookup: BookingStatus::NotFound,
        ..Default::default()
    };
    let carrier = at_scripted(&scripted).await;
    for (attempt, counts) in [(FIRST, (0, 1)), (RETRY, (1, 2))] {
        // The scripted response has no result.
        let unknown = carrier
            .perform("o/book/1", &book(), attempt)
            .await
            .expect_err("nothing");
        assert!(unknown.partner_fault);
        assert_eq!(scripted.counts(), counts);
    }
}

#[tokio::test]
async fn an_invalid_tracking_number_is_a_fault_of_the_carrier() {
    for tracking_number in [String::new(), "x".repeat(65)] {
        let status = BookingStatus::Booked.into();
        let answer = BookResponse {
            status,
            tracking_number,
            ..Default::default()
        };
        let carrier = at_scripted(&ScriptedCarrier {
            book: answer,
            ..Default::default()
        })
        .await;
        let unknown = carrier
            .perform("o/book/1", &book(), FIRST)
            .await
            .expect_err("not usable");
        assert!(unknown.partner_fault);
    }
}

#[tokio::test]
async fn an_error_is_unknown_and_never_refused() {
    for (code, partner_fault) in [(Code::Unavailable, true), (Code::InvalidArgument, false)] {
        let scripted = ScriptedCarrier {
            call: Some(code),
            ..Default::default()
        };
        let carrier = at_scripted(&scripted).await;
        for effect in [book(), void()] {
            let unknown = carrier
                .perform("key", &effect, FIRST)
                .await
                .expect_err("an error");
            assert_eq!(unknown.partner_fault, partner_fault, "{unknown}");
        }
    }
}

#[tokio::test]
async fn a_call_without_a_response_ends_at_the_deadline() {
    let scripted = ScriptedCarrier {
        call: Some(Code::Ok),
        ..Default::default()
    };
    let carrier = at_scripted(&scripted).await;
    // Connect first, so that the deadline covers only the call.
    carrier
        .lookup("key", Duration::ZERO)
        .await
        .expect("look-ups are answered");
    let short_wait = Deadlines {
        call: Duration::from_millis(50),
        ..DEADLINES
    };
    let carrier = Carrier {
        deadlines: short_wait,
        ..carrier
    };
    let unknown = carrier
        .perform("o/book/1", &book(), FIRST)
        .await
        .expect_err("silence");
    assert!(unknown.partner_fault);
    // Client or server may notice the deadline first; their messages differ.
    let expected =
        ["the deadline has passed", "Timeout expired"].map(|words| unknown.reason.contains(words));
    assert!(expected.contains(&true), "{unknown}");
}

#[test]
fn tracking_has_its_own_target() {
    let channel = || peer("127.0.0.1:1");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let _inside = runtime.enter();
    let carrier = Carrier::new(channel(), DEADLINES);
    assert_eq!(carrier.target(&book()), carrier.target(&void()));
    assert_ne!(carrier.target(&book()), carrier.target(&track()));
}
