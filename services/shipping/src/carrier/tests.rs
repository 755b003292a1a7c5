//! The carrier against the sandbox, and against partners that give no definite answer.

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

const DEADLINES: Deadlines = Deadlines {
    call: Duration::from_secs(10),
    tracking_wait: Duration::from_secs(60),
};

fn peer(address: &str) -> Peer {
    Peer::connect_lazy("sandbox", &[address.parse().expect("an address")])
}

/// A carrier at a server of `routes`; the server lives as long as the test.
async fn at(routes: Routes) -> Carrier {
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
    (folder, at(sandbox.routes()).await)
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
async fn a_parcel_is_booked_found_again_and_tracked_until_it_arrives() {
    let (_folder, carrier) = at_sandbox(0, 50).await;
    let answer = carrier
        .perform("o/book/1", &book(), AGAIN)
        .await
        .expect("not found: booked");
    assert!(matches!(answer, Command::RecordBooked(_)), "{answer:?}");
    for attempt in [FIRST, AGAIN] {
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
    // Delivered, the booking still answers as a booking, and it is too late to void it.
    assert_eq!(
        carrier.perform("o/book/1", &book(), AGAIN).await,
        Ok(answer.clone())
    );
    assert_eq!(
        carrier.perform("o/void/1", &void(), FIRST).await,
        Ok(answer)
    );
}

#[tokio::test]
async fn a_parcel_on_its_way_is_unknown_but_no_fault() {
    let (_folder, carrier) = at_sandbox(0, 3_600_000).await;
    carrier
        .perform("o/book/1", &book(), FIRST)
        .await
        .expect("booked");
    let hasty = Deadlines {
        tracking_wait: Duration::from_millis(20),
        ..DEADLINES
    };
    let carrier = Carrier {
        deadlines: hasty,
        ..carrier
    };
    let unknown = carrier
        .perform("o/track/1", &track(), FIRST)
        .await
        .expect_err("on its way");
    assert!(!unknown.partner_fault, "{unknown}");
}

#[tokio::test]
async fn a_refused_booking_says_why() {
    let (_folder, carrier) = at_sandbox(100, 0).await;
    for attempt in [FIRST, AGAIN] {
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
async fn a_void_bars_the_booking_also_of_a_former_owner() {
    let (_folder, carrier) = at_sandbox(0, 0).await;
    let voided = Command::RecordBookingVoided(RecordBookingVoided {});
    assert_eq!(
        carrier.perform("o/void/1", &void(), FIRST).await,
        Ok(voided.clone())
    );
    assert_eq!(
        carrier.perform("o/void/1", &void(), AGAIN).await,
        Ok(voided.clone())
    );
    assert_eq!(
        carrier.perform("o/book/1", &book(), FIRST).await,
        Ok(voided.clone())
    );
    assert_eq!(
        carrier.perform("o/book/1", &book(), AGAIN).await,
        Ok(voided)
    );
    let unknown = carrier
        .perform("o/track/1", &track(), FIRST)
        .await
        .expect_err("no parcel");
    assert!(unknown.partner_fault);
}

#[tokio::test]
async fn a_wait_longer_than_the_contract_allows_is_cut() {
    let (_folder, carrier) = at_sandbox(0, 0).await;
    carrier
        .perform("o/book/1", &book(), FIRST)
        .await
        .expect("booked");
    let patient = Deadlines {
        tracking_wait: Duration::from_secs(7200),
        ..DEADLINES
    };
    let unused = peer("127.0.0.1:1");
    let carrier = Carrier {
        client: carrier.client,
        ..Carrier::new(unused, patient)
    };
    let delivered = Command::RecordDelivered(RecordDelivered {});
    assert_eq!(
        carrier.perform("o/track/1", &track(), FIRST).await,
        Ok(delivered)
    );
}

/// Answers every call alike and counts the look-ups and the others.
#[derive(Clone, Default)]
struct Scripted {
    lookup: BookingStatus,
    call: Option<Code>,
    book: BookResponse,
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

    async fn called<T>(&self, answer: T) -> Result<Response<T>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.call {
            None => Ok(Response::new(answer)),
            // As a partner that takes the call and never answers.
            Some(Code::Ok) => std::future::pending().await,
            Some(code) => Err(Status::new(code, "scripted")),
        }
    }
}

#[tonic::async_trait]
impl CarrierService for Scripted {
    async fn book(&self, _: Request<BookRequest>) -> Result<Response<BookResponse>, Status> {
        self.called(self.book.clone()).await
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
        self.called(VoidResponse::default()).await
    }
}

async fn at_scripted(scripted: &Scripted) -> Carrier {
    at(Routes::new(CarrierServer::new(scripted.clone()))).await
}

#[tokio::test]
async fn in_progress_is_unknown_and_not_repeated() {
    let scripted = Scripted {
        lookup: BookingStatus::InProgress,
        ..Default::default()
    };
    let carrier = at_scripted(&scripted).await;
    let unknown = carrier
        .perform("o/book/1", &book(), AGAIN)
        .await
        .expect_err("in progress");
    assert!(!unknown.partner_fault, "{unknown}");
    assert_eq!(scripted.counts(), (1, 0));
}

#[tokio::test]
async fn only_a_repetition_is_looked_up_and_only_not_found_is_repeated() {
    let scripted = Scripted {
        lookup: BookingStatus::NotFound,
        ..Default::default()
    };
    let carrier = at_scripted(&scripted).await;
    for (attempt, counts) in [(FIRST, (0, 1)), (AGAIN, (1, 2))] {
        // The scripted answer says nothing.
        let unknown = carrier
            .perform("o/book/1", &book(), attempt)
            .await
            .expect_err("nothing");
        assert!(unknown.partner_fault);
        assert_eq!(scripted.counts(), counts);
    }
}

#[tokio::test]
async fn a_tracking_number_that_breaks_the_contract_is_no_answer() {
    for tracking_number in [String::new(), "x".repeat(65)] {
        let status = BookingStatus::Booked.into();
        let answer = BookResponse {
            status,
            tracking_number,
            ..Default::default()
        };
        let carrier = at_scripted(&Scripted {
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
    for (code, partner_fault) in [
        (Code::Unavailable, true),
        (Code::Internal, true),
        (Code::InvalidArgument, false),
    ] {
        let scripted = Scripted {
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
async fn a_silent_partner_is_given_up_after_the_deadline() {
    let scripted = Scripted {
        call: Some(Code::Ok),
        ..Default::default()
    };
    let carrier = at_scripted(&scripted).await;
    // Connect first: the deadline is for the call.
    carrier
        .lookup("key", Duration::ZERO)
        .await
        .expect("look-ups are answered");
    let hasty = Deadlines {
        call: Duration::from_millis(50),
        ..DEADLINES
    };
    let carrier = Carrier {
        deadlines: hasty,
        ..carrier
    };
    let unknown = carrier
        .perform("o/book/1", &book(), FIRST)
        .await
        .expect_err("silence");
    assert!(unknown.partner_fault);
    // Either end may notice first, each in its own words.
    let noticed =
        ["the deadline has passed", "Timeout expired"].map(|words| unknown.reason.contains(words));
    assert!(noticed.contains(&true), "{unknown}");
}

#[test]
fn targets_keep_tracking_apart() {
    let channel = || peer("127.0.0.1:1");
    let runtime = tokio::runtime::Runtime::new().expect("threads are there");
    let _inside = runtime.enter();
    let carrier = Carrier::new(channel(), DEADLINES);
    assert_eq!(carrier.target(&book()), carrier.target(&void()));
    assert_ne!(carrier.target(&book()), carrier.target(&track()));
}
