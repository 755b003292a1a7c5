//! Partners that fail as they are told.

use std::collections::HashSet;

use contracts::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use contracts::sandbox::v1::{Faults, GetBehaviourRequest};
use tonic::Request;

use super::*;

/// For calls that are answered.
const PATIENT: Duration = Duration::from_secs(60);
/// For calls that are given up.
const IMPATIENT: Duration = Duration::from_millis(100);

const RPCS: [&str; 7] = [
    "charge",
    "refund",
    "lookup",
    "void",
    "book",
    "track",
    "void booking",
];

/// Both partners fail like this.
fn failing(faults: Faults) -> Behaviour {
    Behaviour {
        provider: Some(faults),
        carrier: Some(faults),
        ..BEHAVIOUR
    }
}

fn within<T>(patience: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

async fn behave(served: &Served, behaviour: Behaviour) {
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

/// Calls every RPC of both partners, and says what came of it.
async fn call_all(served: &Served, patience: Duration) -> Vec<Result<(), Code>> {
    fn code<T>(answer: Result<T, tonic::Status>) -> Result<(), Code> {
        answer.map(drop).map_err(|status| status.code())
    }
    let (mut provider, mut carrier) = (served.provider(), served.carrier());
    vec![
        code(
            provider
                .charge(within(patience, charge("c", 5, "ada")))
                .await,
        ),
        code(provider.refund(within(patience, refund("r", "c", 5))).await),
        code(provider.lookup(within(patience, lookup("c"))).await),
        code(provider.void(within(patience, void("v"))).await),
        code(carrier.book(within(patience, book("b"))).await),
        code(carrier.lookup(within(patience, track("b", 0))).await),
        code(carrier.void(within(patience, void_booking("bv"))).await),
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
        let entry = entry.expect("the ledger is whole");
        (entry.idempotency_key, entry.kind)
    });
    let bookings = bookings.map(|entry| {
        let entry = entry.expect("the ledger is whole");
        (entry.idempotency_key, entry.kind)
    });
    payments.chain(bookings).collect().await
}

fn lines(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, kind): &(&str, &str)| ((*key).to_owned(), (*kind).to_owned());
    lines.iter().map(owned).collect()
}

/// Afterwards, everything is there that was asked for.
fn everything() -> Vec<(String, String)> {
    lines(&[
        ("c", "charged"),
        ("r", "refunded"),
        ("v", "voided"),
        ("b", "booked"),
        ("bv", "voided"),
    ])
}

#[tokio::test]
async fn in_an_outage_every_call_is_refused_until_it_ends() {
    let folder = folder();
    let outage = Faults {
        outage: true,
        ..Default::default()
    };
    let served = Served::start(folder.path(), failing(outage)).await;
    assert_eq!(
        call_all(&served, PATIENT).await,
        [Err(Code::Unavailable); RPCS.len()]
    );
    assert_eq!(entries(&served).await, []);

    // Each partner has faults of its own.
    let carrier_only = Behaviour {
        provider: None,
        ..failing(outage)
    };
    behave(&served, carrier_only).await;
    let (provider, carrier) = (&[Ok(()); 4][..], &[Err(Code::Unavailable); 3][..]);
    assert_eq!(
        call_all(&served, PATIENT).await,
        [provider, carrier].concat()
    );

    behave(&served, BEHAVIOUR).await;
    assert_eq!(call_all(&served, PATIENT).await, [Ok(()); RPCS.len()]);
    assert_eq!(entries(&served).await, everything());
    served.stop().await;
}

#[tokio::test]
async fn a_call_that_hangs_is_given_up_and_nothing_has_happened() {
    let folder = folder();
    let hang = Faults {
        hang_percent: 100,
        ..Default::default()
    };
    let served = Served::start(folder.path(), failing(hang)).await;
    for (rpc, answer) in RPCS.iter().zip(call_all(&served, IMPATIENT).await) {
        // The caller's clock or the server's, whichever was faster.
        let given_up = matches!(answer, Err(Code::Cancelled | Code::DeadlineExceeded));
        assert!(given_up, "{rpc}: {answer:?}");
    }
    assert_eq!(entries(&served).await, []);
    behave(&served, BEHAVIOUR).await;
    assert_eq!(call_all(&served, PATIENT).await, [Ok(()); RPCS.len()]);
    served.stop().await;
}

#[tokio::test]
async fn a_call_that_ends_in_a_server_error_has_done_nothing() {
    let folder = folder();
    let error = Faults {
        error_percent: 100,
        ..Default::default()
    };
    let served = Served::start(folder.path(), failing(error)).await;
    let mut codes = HashSet::new();
    for _ in 0..8 {
        let answers = call_all(&served, PATIENT).await;
        codes.extend(answers.into_iter().map(|answer| answer.expect_err("100 %")));
    }
    assert_eq!(codes, [Code::Internal, Code::Unavailable].into());
    assert_eq!(entries(&served).await, []);
    served.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_its_caller_in_doubt_but_the_ledger_is_written() {
    let folder = folder();
    let lost = Faults {
        reply_lost_percent: 100,
        ..Default::default()
    };
    let served = Served::start(folder.path(), failing(lost)).await;
    for _ in 0..2 {
        for (rpc, answer) in RPCS.iter().zip(call_all(&served, PATIENT).await) {
            // Asking what has become of a key tells.
            let expected = match *rpc {
                "lookup" | "track" => Ok(()),
                _ => Err(Code::Unavailable),
            };
            assert_eq!(answer, expected, "{rpc}");
        }
        assert_eq!(entries(&served).await, everything());
    }
    served.stop().await;

    let served = Served::start(folder.path(), BEHAVIOUR).await;
    assert_eq!(entries(&served).await, everything());
    assert_eq!(call_all(&served, PATIENT).await, [Ok(()); RPCS.len()]);
    assert_eq!(entries(&served).await, everything());
    served.stop().await;
}

#[tokio::test]
async fn what_comes_late_is_carried_out_also_when_its_caller_has_gone() {
    let folder = folder();
    let slow = Faults {
        slow_percent: 100,
        slow_ms: 500,
        ..Default::default()
    };
    let served = Served::start(folder.path(), failing(slow)).await;
    // A refund that comes before its charge would be refused.
    let mut provider = served.provider();
    charged(&mut provider, "c").await;
    for (rpc, answer) in RPCS.iter().zip(call_all(&served, IMPATIENT).await) {
        assert!(answer.is_err(), "{rpc} was answered in time");
    }
    // These come later still.
    charged(&mut provider, "last").await;
    let answer = served.carrier().book(book("last")).await;
    assert_eq!(
        answer.expect("it answers").into_inner().status(),
        BookingStatus::Booked
    );
    let mut expected = everything();
    expected.insert(3, ("last".into(), "charged".into()));
    expected.push(("last".into(), "booked".into()));
    assert_eq!(entries(&served).await, expected);
    served.stop().await;
}

#[tokio::test]
async fn a_late_charge_is_refused_when_a_void_came_first() {
    let folder = folder();
    let slow = failing(Faults {
        slow_percent: 100,
        // Time for the void.
        slow_ms: 2_000,
        ..Default::default()
    });
    let served = Served::start(folder.path(), BEHAVIOUR).await;
    let mut client = served.provider();
    charged(&mut client, "first").await;
    behave(&served, slow).await;
    let gone = client.charge(within(IMPATIENT, charge("gone", 5, "ada")));
    gone.await.expect_err("it comes late");

    behave(&served, BEHAVIOUR).await;
    let voided = client.void(void("gone")).await.expect("it answers");
    assert_eq!(voided.into_inner().status(), ChargeStatus::Voided);

    // When this one has come, so has the other.
    behave(&served, slow).await;
    charged(&mut client, "last").await;
    assert_eq!(
        entries(&served).await,
        lines(&[
            ("first", "charged"),
            ("gone", "voided"),
            ("last", "charged")
        ])
    );
    served.stop().await;
}

/// What came of three calls each for many keys, one after the other.
async fn drawn(seed: u64) -> Vec<Result<(), Code>> {
    let folder = folder();
    let some = Faults {
        error_percent: 30,
        reply_lost_percent: 30,
        ..Default::default()
    };
    let behaviour = Behaviour {
        seed,
        ..failing(some)
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
async fn the_same_seed_fails_in_the_same_calls_and_a_retry_may_pass() {
    let answers = drawn(1).await;
    assert_eq!(drawn(1).await, answers);
    assert_ne!(drawn(2).await, answers);
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
    charged(&mut client, "c").await;
    // Under another key the answer may be another, until one is a yes.
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

    behave(&served, BEHAVIOUR).await;
    for (attempt, before) in (1..).zip(&answers) {
        let request = refund(&format!("r/{attempt}"), "c", 5);
        let again = client.refund(request).await.expect("it answers");
        assert_eq!(again.into_inner(), *before);
    }
    let refused = ("refund_refused", answers.len() - 1);
    let kinds = entries(&served).await.into_iter().map(|(_, kind)| kind);
    assert_eq!(kinds.filter(|kind| kind == refused.0).count(), refused.1);
    served.stop().await;
}

#[tokio::test]
async fn a_bad_behaviour_changes_nothing_and_all_of_it_is_named() {
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

    let in_force = async |control: &mut SandboxServiceClient<Channel>| {
        let answer = control.get_behaviour(GetBehaviourRequest {}).await;
        answer.expect("it answers").into_inner().behaviour
    };
    assert_eq!(in_force(&mut control).await, Some(BEHAVIOUR));
    let outage = failing(Faults {
        outage: true,
        ..Default::default()
    });
    behave(&served, outage).await;
    assert_eq!(in_force(&mut control).await, Some(outage));
    served.stop().await;
}
