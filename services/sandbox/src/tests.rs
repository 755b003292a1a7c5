//! Tests of the sandbox over gRPC, and after a restart.

use std::time::{Duration, Instant};

use contracts::carrier::v1::{self as carrier_v1, BookRequest, BookingStatus};
use contracts::core::v1::Money;
use contracts::orders::v1::{Address, Contact};
use contracts::provider::v1::payment_provider_client::PaymentProviderClient;
use contracts::provider::v1::{
    ChargeRequest, ChargeResponse, ChargeStatus, LookupRequest, RefundRequest, RefundStatus,
    VoidRequest,
};
use contracts::sandbox::v1::{ListBookingsRequest, ListPaymentsRequest, SetBehaviourRequest};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Channel;

use super::*;

mod faults;
mod served;

use served::{BEHAVIOUR, Served};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

fn euros(minor_units: i64) -> Option<Money> {
    Some(Money {
        minor_units,
        currency: "EUR".into(),
    })
}

fn charge(key: &str, minor_units: i64, customer_id: &str) -> ChargeRequest {
    let customer_id = customer_id.into();
    ChargeRequest {
        idempotency_key: key.into(),
        amount: euros(minor_units),
        customer_id,
    }
}

fn refund(key: &str, charge_key: &str, minor_units: i64) -> RefundRequest {
    let charge_key = charge_key.into();
    RefundRequest {
        idempotency_key: key.into(),
        charge_key,
        amount: euros(minor_units),
    }
}

fn lookup(key: &str) -> LookupRequest {
    LookupRequest {
        idempotency_key: key.into(),
    }
}

fn void(key: &str) -> VoidRequest {
    VoidRequest {
        idempotency_key: key.into(),
    }
}

fn book(key: &str) -> BookRequest {
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
    BookRequest {
        idempotency_key: key.into(),
        contact: Some(contact),
        pieces: 1,
    }
}

fn track(key: &str, wait_ms: u32) -> carrier_v1::LookupRequest {
    carrier_v1::LookupRequest {
        idempotency_key: key.into(),
        wait_ms,
    }
}

async fn send_charge(client: &mut PaymentProviderClient<Channel>, key: &str) -> ChargeResponse {
    let answer = client
        .charge(charge(key, 5, "ada"))
        .await
        .expect("the sandbox answers");
    answer.into_inner()
}

#[tokio::test]
async fn repeated_charges_of_a_key_charge_once() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut client = served.provider();
    let first = send_charge(&mut client, "c").await;
    assert_eq!(first.status(), ChargeStatus::Charged);
    assert!(!first.reference.is_empty());
    assert_eq!(send_charge(&mut client, "c").await, first);

    for other in [charge("c", 6, "ada"), charge("c", 5, "bob")] {
        let refused = client.charge(other).await.expect_err("the key was used");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let found = client
        .lookup(lookup("c"))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(
        (found.charge(), found.refund()),
        (ChargeStatus::Charged, RefundStatus::Unspecified)
    );
    assert_eq!(found.reference, first.reference);
    let voided = client
        .void(void("c"))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(voided.status(), ChargeStatus::Charged);
    served.stop().await;
}

#[tokio::test]
async fn invalid_requests_write_nothing() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut client = served.provider();
    let no_currency = ChargeRequest {
        amount: Some(Money::default()),
        ..charge("c", 5, "ada")
    };
    for bad in [
        charge("", 5, "ada"),
        charge("c", 0, "ada"),
        charge("c", 5, ""),
        no_currency,
    ] {
        let refused = client.charge(bad).await.expect_err("it is bad");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let found = client
        .lookup(lookup("c"))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(found.charge(), ChargeStatus::NotFound);
    served.stop().await;
}

#[tokio::test]
async fn verdicts_survive_a_restart() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let (mut provider, mut carrier) = (served.provider(), served.carrier());
    let first = send_charge(&mut provider, "c").await;
    provider.void(void("v")).await.expect("it answers");
    let refunded = provider
        .refund(refund("r", "c", 5))
        .await
        .expect("it answers")
        .into_inner();
    let booked = carrier
        .book(book("b"))
        .await
        .expect("it answers")
        .into_inner();
    let void_booking = carrier_v1::VoidRequest {
        idempotency_key: "bv".into(),
    };
    carrier.void(void_booking).await.expect("it answers");
    served.stop().await;

    // From now on the partners refuse every new key.
    let refuse_all = Behaviour {
        decline_percent: 100,
        refuse_percent: 100,
        ..BEHAVIOUR
    };
    let served = Served::start(folder.path(), refuse_all).await;
    let (mut provider, mut carrier) = (served.provider(), served.carrier());
    assert_eq!(send_charge(&mut provider, "c").await, first);
    assert_eq!(
        send_charge(&mut provider, "v").await.status(),
        ChargeStatus::Voided
    );
    let repeated = provider
        .refund(refund("r", "c", 5))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(repeated, refunded);
    let another = provider
        .refund(refund("r2", "c", 5))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(another.status(), RefundStatus::Refused);
    assert_eq!(
        carrier
            .book(book("b"))
            .await
            .expect("it answers")
            .into_inner(),
        booked
    );
    let voided = carrier
        .book(book("bv"))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(voided.status(), BookingStatus::Voided);
    served.stop().await;
}

#[tokio::test]
async fn a_refund_gives_a_charge_back_once() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut client = served.provider();
    send_charge(&mut client, "c").await;
    for (request, expected) in [
        (refund("r1", "c", 4), RefundStatus::Refused),
        (refund("r2", "unknown", 5), RefundStatus::Refused),
        (refund("r3", "c", 5), RefundStatus::Refunded),
        (refund("r3", "c", 5), RefundStatus::Refunded),
        (refund("r4", "c", 5), RefundStatus::Refused),
    ] {
        let key = request.idempotency_key.clone();
        let answer = client
            .refund(request)
            .await
            .expect("it answers")
            .into_inner();
        assert_eq!(answer.status(), expected, "{key}");
        let found = client
            .lookup(lookup(&key))
            .await
            .expect("it answers")
            .into_inner();
        assert_eq!(
            (found.charge(), found.refund()),
            (ChargeStatus::Unspecified, expected),
            "{key}"
        );
        assert_eq!(
            (found.reference, found.reason),
            (answer.reference, answer.reason),
            "{key}"
        );
    }
    served.stop().await;
}

#[tokio::test]
async fn the_same_customers_are_declined() {
    let folder = folder();
    let half = Behaviour {
        decline_percent: 50,
        ..BEHAVIOUR
    };
    let served = Served::start(folder.path(), half).await;
    let mut client = served.provider();
    let mut declined = 0;
    for customer in 0..40 {
        let mut statuses = Vec::new();
        for order in 0..3 {
            let request = charge(
                &format!("{customer}/{order}"),
                5,
                &format!("customer-{customer}"),
            );
            let answer = client
                .charge(request)
                .await
                .expect("it answers")
                .into_inner();
            statuses.push(answer.status());
        }
        assert!(
            statuses.windows(2).all(|pair| pair[0] == pair[1]),
            "{statuses:?}"
        );
        declined += u32::from(statuses[0] == ChargeStatus::Declined);
    }
    assert!((5..35).contains(&declined), "{declined} of 40");
    served.stop().await;
}

#[tokio::test]
async fn tracking_waits_for_the_delivery() {
    let folder = folder();
    let soon = Behaviour {
        delivery_ms: 50,
        ..BEHAVIOUR
    };
    let served = Served::start(folder.path(), soon).await;
    let (mut carrier, mut control) = (served.carrier(), served.control());

    let booked = carrier
        .book(book("soon"))
        .await
        .expect("it answers")
        .into_inner();
    let waited = carrier
        .lookup(track("soon", 60_000))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(waited.status(), BookingStatus::Delivered);
    assert_eq!(waited.tracking_number, booked.tracking_number);

    let late = Behaviour {
        delivery_ms: 3_600_000,
        ..Default::default()
    };
    let request = SetBehaviourRequest {
        behaviour: Some(late),
    };
    control.set_behaviour(request).await.expect("it answers");
    carrier.book(book("late")).await.expect("it answers");
    let started = Instant::now();
    let waited = carrier
        .lookup(track("late", 30))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(waited.status(), BookingStatus::Booked);
    assert!(started.elapsed() >= Duration::from_millis(30));

    let unknown = carrier
        .lookup(track("unknown", 60_000))
        .await
        .expect("it answers")
        .into_inner();
    assert_eq!(unknown.status(), BookingStatus::NotFound);
    served.stop().await;
}

#[tokio::test]
async fn the_ledgers_are_listed_in_order() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let (mut provider, mut carrier, mut control) =
        (served.provider(), served.carrier(), served.control());
    let first = send_charge(&mut provider, "c").await;
    provider.void(void("v")).await.expect("it answers");
    provider
        .refund(refund("r", "c", 5))
        .await
        .expect("it answers");
    send_charge(&mut provider, "c").await;
    let behaviour = Behaviour {
        refuse_percent: 100,
        ..Default::default()
    };
    carrier.book(book("b")).await.expect("it answers");
    let request = SetBehaviourRequest {
        behaviour: Some(behaviour),
    };
    control.set_behaviour(request).await.expect("it answers");
    carrier.book(book("refused")).await.expect("it answers");

    let payments = control
        .list_payments(ListPaymentsRequest {})
        .await
        .expect("it answers");
    let payments: Vec<_> = payments
        .into_inner()
        .map(|payment| payment.expect("the ledger is intact"))
        .map(|payment| {
            (
                payment.idempotency_key,
                payment.kind,
                payment.amount,
                payment.charge_key,
            )
        })
        .collect()
        .await;
    let line = |key: &str, kind: &str, amount, charge_key: &str| {
        (
            key.to_owned(),
            kind.to_owned(),
            amount,
            charge_key.to_owned(),
        )
    };
    assert_eq!(
        payments,
        [
            line("c", "charged", euros(5), ""),
            line("v", "voided", None, ""),
            line("r", "refunded", euros(5), "c"),
        ]
    );
    assert!(first.reference.starts_with("ch_"));

    let bookings = control
        .list_bookings(ListBookingsRequest {})
        .await
        .expect("it answers");
    let bookings: Vec<_> = bookings
        .into_inner()
        .map(|booking| booking.expect("the ledger is intact"))
        .map(|booking| (booking.idempotency_key, booking.kind))
        .collect()
        .await;
    let line = |key: &str, kind: &str| (key.to_owned(), kind.to_owned());
    assert_eq!(bookings, [line("b", "booked"), line("refused", "refused")]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_charges_of_a_key_charge_once() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let mut client = served.provider();
        callers.spawn(async move { send_charge(&mut client, "c").await });
    }
    let answers = callers.join_all().await;
    assert!(answers.iter().all(|answer| answer == &answers[0]));
    let ledger = fs::read_to_string(folder.path().join(PAYMENTS_FILE)).expect("it is there");
    assert_eq!(ledger.lines().count(), 1);
    served.stop().await;
}

/// A reply is sent only once its entry is in the file.
#[tokio::test]
async fn a_reply_waits_until_its_entry_is_durable() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut client = served.provider();
    for calls in 1..50 {
        send_charge(&mut client, &format!("c/{calls}")).await;
        let ledger = fs::read_to_string(folder.path().join(PAYMENTS_FILE)).expect("it is there");
        assert_eq!(ledger.lines().count(), calls);
    }
    served.stop().await;
}

/// Prints the rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_concurrent_charges_are_written() {
    const CALLERS: usize = 64;
    const CALLS: usize = 100;
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let channels: Vec<_> = (0..4).map(|_| served.channel()).collect();
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut client = PaymentProviderClient::new(channels[caller % channels.len()].clone());
        callers.spawn(async move {
            for call in 0..CALLS {
                let key = format!("{caller}/{call}");
                assert_eq!(
                    send_charge(&mut client, &key).await.status(),
                    ChargeStatus::Charged
                );
            }
        });
    }
    callers.join_all().await;
    let rate = (CALLERS * CALLS) as f64 / started.elapsed().as_secs_f64();
    eprintln!("{rate:.0} charges/s over gRPC with {CALLERS} callers");

    let ledger = fs::read_to_string(folder.path().join(PAYMENTS_FILE)).expect("it is there");
    assert_eq!(ledger.lines().count(), CALLERS * CALLS);
    served.stop().await;
}

#[tokio::test]
async fn a_closed_sandbox_refuses_new_keys() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut client = served.provider();
    let first = send_charge(&mut client, "c").await;
    served.sandbox.close().await;
    assert_eq!(send_charge(&mut client, "c").await, first);
    let refused = client
        .charge(charge("new", 5, "ada"))
        .await
        .expect_err("it is closed");
    assert_eq!(refused.code(), Code::Unavailable);
    served.stop().await;
}

#[test]
fn a_folder_that_cannot_be_created_is_named_in_the_error() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").expect("the disk works");
    let config = Config {
        ledger: file.join("ledger"),
        behaviour: BEHAVIOUR,
    };
    let error = Sandbox::open(config)
        .err()
        .expect("a file is no folder")
        .to_string();
    assert!(error.contains("file/ledger"), "{error}");
}
