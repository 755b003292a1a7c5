//! The OpenAPI document and the routes that it describes.

use std::collections::BTreeSet;

use reqwest::{Client, Method};
use serde_json::Value;

use crate::peers::{ORDER_ID, serve_all};
use crate::rest::get;

#[tokio::test]
async fn what_is_described_is_routed_and_what_is_not_is_not() {
    let (gateway, _peers, _) = serve_all().await;
    let answer = get(&gateway, "/openapi.json").await;
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let document: Value = answer.json().await.expect("it is JSON");
    assert_eq!(document["openapi"], "3.1.0");

    let paths = document["paths"].as_object().expect("it is an object");
    assert!(paths.len() >= 8, "only {} paths", paths.len());
    for (path, described) in paths {
        let described: BTreeSet<_> = described
            .as_object()
            .expect("it is an object")
            .keys()
            .map(|method| method.to_ascii_uppercase())
            .collect();
        let url = gateway.url(&path.replace("{id}", ORDER_ID).replace("{sku}", "mug"));
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ] {
            let answer = Client::new()
                .request(method.clone(), &url)
                .send()
                .await
                .expect("it listens");
            let status = answer.status().as_u16();
            if !described.contains(method.as_str()) {
                assert_eq!(status, 405, "{method} {path}");
                let allowed = answer.headers()["allow"].to_str().expect("it is text");
                let allowed: BTreeSet<_> = allowed
                    .split(',')
                    .filter(|method| *method != "HEAD")
                    .map(str::to_owned)
                    .collect();
                assert_eq!(allowed, described, "{path}");
                continue;
            }
            // What it answers, down to the statuses of refusals, is described as well.
            let operation = &document["paths"][path][method.as_str().to_ascii_lowercase()];
            assert!(
                operation["responses"].get(status.to_string()).is_some(),
                "{method} {path} answers {status}"
            );
        }
    }
}
