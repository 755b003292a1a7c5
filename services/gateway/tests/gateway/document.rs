//! Compares the OpenAPI document with the routes.

use std::collections::BTreeSet;

use reqwest::{Client, Method};
use serde_json::Value;

use crate::peers::{ORDER_ID, serve_all};
use crate::rest::get;

#[tokio::test]
async fn the_document_describes_exactly_the_routes() {
    let (gateway, _peers, _) = serve_all().await;
    let response = get(&gateway, "/openapi.json").await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    let document: Value = response.json().await.expect("it is JSON");
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
            let response = Client::new()
                .request(method.clone(), &url)
                .send()
                .await
                .expect("it listens");
            let status = response.status().as_u16();
            if !described.contains(method.as_str()) {
                assert_eq!(status, 405, "{method} {path}");
                let allowed = response.headers()["allow"].to_str().expect("it is text");
                let allowed: BTreeSet<_> = allowed
                    .split(',')
                    .filter(|method| *method != "HEAD")
                    .map(str::to_owned)
                    .collect();
                assert_eq!(allowed, described, "{path}");
                continue;
            }
            // The status of the response is described as well.
            let operation = &document["paths"][path][method.as_str().to_ascii_lowercase()];
            assert!(
                operation["responses"].get(status.to_string()).is_some(),
                "{method} {path} returns {status}"
            );
        }
    }
}
