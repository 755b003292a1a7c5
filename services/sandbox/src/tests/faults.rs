//! Tests of injected faults.

use std::collections::HashSet;

use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::{Faults, GetBehaviourRequest};
use tonic::Request;

use super::*;

/// For calls that receive a reply.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);
/// For calls that are expected to time out.
const SHORT_TIMEOUT: Duration = Duration::from_millis(100);

const RPCS: [&str; 7] = [
    "charge",
    "refund",
    "lookup",
    "void",
    "book",
    "track",
    "void booking",
];

/// A behaviour with these faults in both partners.
fn both_failing(faults: Faults) -> Behaviour {
    Behaviour {
        provider: Some(faults),
        carrier: Some(faults),
        ..BEHAVIOUR
    }
}

fn with_timeout<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

async fn set_behaviour(served: &Served, behaviour: Behaviour) {
    let request = SetBehaviourRequest {
        behaviour: Some(behaviour),
    };
    let set = served.control().set_behaviour(request).await;
    set.expect("it is valid");
}

fn void_booking(key: &str) -> carrier_v1::VoidRequest {
    carrier_v1::VoidRequest {
        idempotency_key: key.into(),
    }
}

/// Calls every RPC of both partners and returns the results.
async fn call_all(served: &Served, timeout: Duration) -> Vec<Result<(), Code>> {
    fn code<T>(answer: Result<T, tonic::Status>) -> Result<(), Code> {
        answer.map(drop).map_err(|status| status.code())
    }
    let (mut provider, mut carrier) = (served.provider(), served.carrier());
    vec![
        code(
            provider
                .charge(with_timeout(timeout, charge("c", 5, "ada")))
                .await,
        ),
        code(
            provider
                .refund(with_timeout(timeout, refund("r", "c", 5)))
                .await,
        ),
        code(provider.lookup(with_timeout(timeout, lookup("c"))).await),
        code(provider.void(with_timeout(timeout, void("v"))).await),
        code(carrier.book(with_timeout(timeout, book("b"))).await),
        code(carrier.lookup(with_timeout(timeout, track("b", 0))).await),
        code(
            carrier
                .void(with_timeout(timeout, void_booking("bv")))
                .await,
        ),
    ]
}

/// Key and kind of every entry of both ledgers.
async fn entries(served: &Served) -> Vec<(String, String)> {
    let mut control = served.control();
    let payments = control.list_payments(ListPaymentsRequest {}).await;
    let payments = payments.expect("it answers").into_inner();
    let bookings = control.list_bookings(ListBookingsRequest {}).await;
    let bookings = bookings.expect("it answers").into_inner();
    let payments = payments.map(|entry| {
        let entry = entry.expect("the ledger is intact");
        (entry.idempotency_key, entry.kind)
    });
    let bookings = bookings.map(|entry| {
        let entry = entry.expect("the ledger is intact");
        (entry.idempotency_key, entry.kind)
    });
    payments.chain(bookings).collect().await
}

fn expected_entries(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, kind): &(&str, &str)| ((*key).to_owned(), (*kind).to_owned());
    entries.iter().map(owned).collect()
}

/// The entries after one successful `call_all`.
fn all_entries() -> Vec<(String, String)> {
    expected_entries(&[
        ("c", "charged"),
        ("r", "refunded"),
        ("v", "voided"),
        ("b", "booked"),
        ("bv", "voided"),
    ])
}

#[tokio::test]
async fn every_call_fails_during_an_outage() {
    let folder = folder();
    let outage = Faults {
        outage: true,
        ..Default::default()
    };
    let served = Served::start(folder.path(), both_failing(outage)).await;
    assert_eq!(
        call_all(&served, LONG_TIMEOUT).await,
        [Err(Code::Unavailable); RPCS.len()]
    );
    assert_eq!(entries(&served).await, []);

    // Each partner has faults of its own.
    let carrier_only = Behaviour {
        provider: None,
        ..both_failing(outage)
    };
    set_behaviour(&served, carrier_only).await;
    let (provider, carrier) = (&[Ok(()); 4][..], &[Err(Code::Unavailable); 3][..]);
    assert_eq!(
        call_all(&served, LONG_TIMEOUT).await,
        [provider, carrier].concat()
    );

    set_behaviour(&served, BEHAVIOUR).await;
    assert_eq!(call_all(&served, LONG_TIMEOUT).await, [Ok(()); RPCS.len()]);
    assert_eq!(entries(&served).await, all_entries());
    served.stop().await;
}

#[tokio::test]
async fn a_hanging_call_times_out_and_writes_nothing() {
    let folder = folder();
    let hang = Faults {
        hang_percent: 100,
        ..Default::default()
    };
    let served = Served::start(folder.path(), both_failing(hang)).await;
    for (rpc, answer) in RPCS.iter().zip(call_all(&served, SHORT_TIMEOUT).await) {
        // The timeout of the client or of the server, whichever comes first.
        let timed_out = matches!(answer, Err(Code::Cancelled | Code::DeadlineExceeded));
        assert!(timed_out, "{rpc}: {answer:?}");
    }
    assert_eq!(entries(&served).await, []);
    set_behaviour(&served, BEHAVIOUR).await;
    assert_eq!(call_all(&served, LONG_TIMEOUT).await, [Ok(()); RPCS.len()]);
    served.stop().await;
}

#[tokio::test]
async fn a_call_with_a_server_error_writes_nothing() {
    let folder = folder();
    let error = Faults {
        error_percent: 100,
        ..Default::default()
    };
    let served = Served::start(folder.path(), both_failing(error)).await;
    let mut codes = HashSet::new();
    for _ in 0..8 {
        let answers = call_all(&served, LONG_TIMEOUT).await;
        codes.extend(answers.into_iter().map(|answer| answer.expect_err("100 %")));
    }
    assert_eq!(codes, [Code::Internal, Code::Unavailable].into());
    assert_eq!(entries(&served).await, []);
    served.stop().await;
}

#[tokio::test]
async fn a_call_whose_reply_is_lost_is_written_to_the_ledger() {
    let folder = folder();
    let lost = Faults {
        reply_lost_percent: 100,
        ..Default::default()
    };
    let served = Served::start(folder.path(), both_failing(lost)).await;
    for _ in 0..2 {
        for (rpc, answer) in RPCS.iter().zip(call_all(&served, LONG_TIMEOUT).await) {
            // Replies to look-ups are never lost.
            let expected = match *rpc {
                "lookup" | "track" => Ok(()),
                _ => Err(Code::Unavailable),
            };
            assert_eq!(answer, expected, "{rpc}");
        }
        assert_eq!(entries(&served).await, all_entries());
    }
    served.stop().await;

    let served = Served::start(folder.path(), BEHAVIOUR).await;
    assert_eq!(entries(&served).await, all_entries());
    assert_eq!(call_all(&served, LONG_TIMEOUT).await, [Ok(()); RPCS.len()]);
    assert_eq!(entries(&served).await, all_entries());
    served.stop().await;
}

#[tokio::test]
async fn a_delayed_call_is_executed_after_its_caller_has_gone() {
    let folder = folder();
    let slow = Faults {
        slow_percent: 100,
        slow_ms: 500,
        ..Default::default()
    };
    let served = Served::start(folder.path(), both_failing(slow)).await;
    // A refund that comes before its charge would be refused.
    let mut provider = served.provider();
    send_charge(&mut provider, "c").await;
    for (rpc, answer) in RPCS.iter().zip(call_all(&served, SHORT_TIMEOUT).await) {
        assert!(answer.is_err(), "{rpc} was answered in time");
    }
    // These calls are delayed as well, so that they are executed after the others.
    send_charge(&mut provider, "last").await;
    let answer = served.carrier().book(book("last")).await;
    assert_eq!(
        answer.expect("it answers").into_inner().status(),
        BookingStatus::Booked
    );
    let mut expected = all_entries();
    expected.insert(3, ("last".into(), "charged".into()));
    expected.push(("last".into(), "booked".into()));
    assert_eq!(entries(&served).await, expected);
    served.stop().await;
}

#[tokio::test]
async fn a_delayed_charge_has_no_effect_after_a_void() {
    let folder = folder();
    let slow = both_failing(Faults {
        slow_percent: 100,
        // Time for the void.
        slow_ms: 2_000,
        ..Default::default()
    });
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut client = served.provider();
    send_charge(&mut client, "first").await;
    set_behaviour(&served, slow).await;
    let gone = client.charge(with_timeout(SHORT_TIMEOUT, charge("gone", 5, "ada")));
    gone.await.expect_err("it comes late");

    set_behaviour(&served, BEHAVIOUR).await;
    let voided = client.void(void("gone")).await.expect("it answers");
    assert_eq!(voided.into_inner().status(), ChargeStatus::Voided);

    // Once this charge is executed, the delayed one is as well.
    set_behaviour(&served, slow).await;
    send_charge(&mut client, "last").await;
    assert_eq!(
        entries(&served).await,
        expected_entries(&[
            ("first", "charged"),
            ("gone", "voided"),
            ("last", "charged")
        ])
    );
    served.stop().await;
}

/// The results of three sequential charges for each of many keys.
async fn charge_results(seed: u64) -> Vec<Result<(), Code>> {
    let folder = folder();
    let some = Faults {
        error_percent: 30,
        reply_lost_percent: 30,
        ..Default::default()
    };
    let behaviour = Behaviour {
        seed,
        ..both_failing(some)
    };
    let served = Served::start(folder.path(), behaviour).await;
    let mut client = served.provider();
    let mut answers = Vec::new();
    for key in 0..30 {
        for _ in 0..3 {
            let answer = client.charge(charge(&format!("{key}"), 5, "ada")).await;
            answers.push(answer.map(drop).map_err(|status| status.code()));
        }
    }
    served.stop().await;
    answers
}

#[tokio::test]
async fn faults_depend_on_the_seed_and_a_retry_may_succeed() {
    let answers = charge_results(1).await;
    assert_eq!(charge_results(1).await, answers);
    assert_ne!(charge_results(2).await, answers);
    let retried = answers.chunks(3).filter(|calls| calls[0].is_err());
    assert!(retried.clone().any(|calls| calls[1].is_ok()));
    assert!(retried.clone().any(|calls| calls[1].is_err()));
}

#[tokio::test]
async fn a_refused_refund_stays_refused() {
    let folder = folder();
    let half = Behaviour {
        refund_refuse_percent: 50,
        seed: 3,
        ..BEHAVIOUR
    };
    let served = Served::start(folder.path(), half).await;
    let mut client = served.provider();
    send_charge(&mut client, "c").await;
    // Another key may get another verdict: try keys until a refund succeeds.
    let mut answers = Vec::new();
    for attempt in 1..=20 {
        let request = refund(&format!("r/{attempt}"), "c", 5);
        let answer = client.refund(request).await.expect("it answers");
        answers.push(answer.into_inner());
        if answers
            .last()
            .is_some_and(|last| last.status() == RefundStatus::Refunded)
        {
            break;
        }
        assert_eq!(
            answers.last().map(|last| last.reason.as_str()),
            Some("declined by the customer's bank")
        );
    }
    assert!(answers.len() > 1, "choose a seed that refuses the first");

    set_behaviour(&served, BEHAVIOUR).await;
    for (attempt, before) in (1..).zip(&answers) {
        let request = refund(&format!("r/{attempt}"), "c", 5);
        let repeated = client.refund(request).await.expect("it answers");
        assert_eq!(repeated.into_inner(), *before);
    }
    let refused = ("refund_refused", answers.len() - 1);
    let kinds = entries(&served).await.into_iter().map(|(_, kind)| kind);
    assert_eq!(kinds.filter(|kind| kind == refused.0).count(), refused.1);
    served.stop().await;
}

#[tokio::test]
async fn an_invalid_behaviour_is_refused_with_all_its_violations() {
    let folder = folder();
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut control = served.control();
    let bad = Behaviour {
        decline_percent: 101,
        provider: Some(Faults {
            hang_percent: 101,
            slow_percent: 1,
            ..Default::default()
        }),
        carrier: Some(Faults {
            slow_ms: 1,
            ..Default::default()
        }),
        ..BEHAVIOUR
    };
    let request = SetBehaviourRequest {
        behaviour: Some(bad),
    };
    let refused = control.set_behaviour(request).await.expect_err("it is bad");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = String::from_utf8_lossy(refused.details()).into_owned();
    for field in [
        "behaviour.decline_percent",
        "behaviour.provider.hang_percent",
        "behaviour.provider.slow_ms",
        "behaviour.carrier.slow_ms",
    ] {
        assert!(details.contains(field), "{field} is missing in {details:?}");
    }
    let missing = SetBehaviourRequest { behaviour: None };
    let refused = control.set_behaviour(missing).await.expect_err("it is bad");
    assert_eq!(refused.code(), Code::InvalidArgument);

    let current_behaviour = async |control: &mut SandboxServiceClient<Channel>| {
        let answer = control.get_behaviour(GetBehaviourRequest {}).await;
        answer.expect("it answers").into_inner().behaviour
    };
    assert_eq!(current_behaviour(&mut control).await, Some(BEHAVIOUR));
    let outage = both_failing(Faults {
        outage: true,
        ..Default::default()
    });
    set_behaviour(&served, outage).await;
    assert_eq!(current_behaviour(&mut control).await, Some(outage));
    served.stop().await;
}
