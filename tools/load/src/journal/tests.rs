use super::lines::encode;
use super::*;
use crate::baskets::BasketFile;

fn baskets(text: &str) -> BasketFile {
    let header = "basket_id,customer_id,sku,description,quantity,amount_cents\n";
    BasketFile::parse("b.csv", format!("{header}{text}").as_bytes()).unwrap()
}

fn chosen(basket: &str, order_id: Uuid) -> Fact {
    Fact::Chosen {
        basket: basket.into(),
        order_id,
    }
}

fn acknowledged(basket: &str, order_id: Uuid) -> Fact {
    Fact::Acknowledged {
        basket: basket.into(),
        order_id,
        status: "pending".into(),
        version: 1,
        lines: 1,
        cents: 7,
    }
}

#[tokio::test]
async fn recorded_facts_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let file = baskets("1,c,s,d,1,7\n");
    let (first, second, third) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let journal = Journal::open(&path, &file).unwrap();
    journal.record(vec![chosen("1", first)]).await.unwrap();
    journal
        .record(vec![acknowledged("1", first)])
        .await
        .unwrap();
    let refusal = Fact::LineRefused {
        basket: "2".into(),
        line: 9,
        sku: "s".into(),
        reason: "no".into(),
    };
    journal
        .record(vec![chosen("2", second), refusal])
        .await
        .unwrap();
    // The answer was that the first id is stale and unknown.
    journal
        .record(vec![chosen("3", first), chosen("3", third)])
        .await
        .unwrap();
    let refused = Fact::Refused {
        basket: "4".into(),
        reason: "no line".into(),
    };
    journal.record(vec![refused]).await.unwrap();

    assert!(matches!(
        Journal::open(&path, &file),
        Err(Error::InUse { .. })
    ));
    drop(journal);

    let known = history(&path).unwrap();
    assert_eq!(
        known.basket("1").result,
        Some(BasketResult::Acknowledged { lines: 1, cents: 7 })
    );
    let unanswered = BasketState {
        order_id: Some(second),
        refused_lines: [(9, "no".to_owned())].into(),
        result: None,
    };
    assert_eq!(known.basket("2"), unanswered);
    assert_eq!(known.basket("3").order_id, Some(third));
    assert_eq!(
        known.basket("4").result,
        Some(BasketResult::Refused {
            reason: "no line".into()
        })
    );
    assert_eq!(known.basket("5"), BasketState::default());
    assert_eq!(known.basket("1").order_id, Some(first));
}

#[tokio::test]
async fn an_incomplete_last_line_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let file = baskets("1,c,s,d,1,7\n");
    let order_id = Uuid::now_v7();
    let header = encode(&Fact::File {
        name: file.name.clone(),
        sha256: file.digest.clone(),
    });
    let fact = encode(&chosen("1", order_id));
    // A crash may cut the file off anywhere.
    for cut in 0..=header.len() + fact.len() {
        let written = [header.as_slice(), &fact].concat()[..cut].to_vec();
        std::fs::write(&path, &written).unwrap();
        let journal = Journal::open(&path, &file).unwrap();
        let known = journal.history().basket("1").order_id;
        assert_eq!(
            known,
            (cut == header.len() + fact.len()).then_some(order_id)
        );
        journal.record(vec![chosen("2", order_id)]).await.unwrap();
        drop(journal);
        assert_eq!(history(&path).unwrap().basket("2").order_id, Some(order_id));
    }
}

#[test]
fn the_journal_of_another_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (ours, mut other) = (baskets("1,c,s,d,1,7\n"), baskets("1,c,s,d,1,8\n"));
    drop(Journal::open(&path, &other).unwrap());
    let error = Journal::open(&path, &ours).map(drop).unwrap_err();
    assert!(
        error.is_input() && error.to_string().contains("another content of b.csv"),
        "{error}"
    );

    other.name = "c.csv".into();
    let path = folder.path().join("of c");
    drop(Journal::open(&path, &other).unwrap());
    let error = Journal::open(&path, &ours).map(drop).unwrap_err();
    assert!(
        error.is_input() && error.to_string().contains("another file, c.csv"),
        "{error}"
    );

    for text in [
        "basket_id,sku\n1,2\n",
        "x",
        r#"{"port": 8080}"#,
        r#"{"fact":"chosen","#,
    ] {
        std::fs::write(&path, text).unwrap();
        let opened = Journal::open(&path, &ours).map(drop);
        for error in [opened.unwrap_err(), history(&path).unwrap_err()] {
            assert!(
                error.is_input() && error.to_string().contains(":1:"),
                "{error}"
            );
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
