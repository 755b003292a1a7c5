//! The log filter over the admin port. One test, because telemetry is set up once per process.

use std::net::SocketAddr;

use chassis::Process;
use chassis::admin::Admin;
use observability::{Settings, init, names};
use reqwest::Client;

#[tokio::test]
async fn the_filter_is_changed_at_run_time() {
    let process = Process::new();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Admin::bind(any_port).await.expect("some port is free");
    let url = format!("http://{}/log", admin.local_addr());
    admin.serve(&process);
    let client = Client::new();
    let show = async || {
        let answer = client.get(&url).send().await.expect("it listens");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("it is text"))
    };
    let put = async |filter: &'static str| {
        let answer = client.put(&url).body(filter).send().await;
        let answer = answer.expect("it listens");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("it is text"))
    };
    assert_eq!(show().await.0, 409, "there is no log yet");
    assert_eq!(put("debug").await.0, 409);

    let mut settings = Settings::read("test", |_| None).expect("defaults are valid");
    settings.otlp_endpoint = Some("http://127.0.0.1:1".to_owned());
    let telemetry = init(&settings).expect("it is the first");
    assert_eq!(show().await, (200, "info\n".to_owned()));
    assert!(!tracing::enabled!(target: "orders", tracing::Level::DEBUG));

    let (status, message) = put("warn,orders=loud").await;
    assert_eq!(status, 400);
    assert!(message.contains("'orders=loud'"), "{message}");
    assert_eq!(put("").await.0, 400);
    assert_eq!(show().await, (200, "info\n".to_owned()));

    let filter = "warn,orders=debug";
    assert_eq!(put(filter).await, (200, format!("{filter}\n")));
    assert_eq!(show().await, (200, format!("{filter}\n")));
    assert!(tracing::enabled!(target: "orders", tracing::Level::DEBUG));
    assert_eq!(
        log::max_level(),
        log::LevelFilter::Debug,
        "the log crate checks this level first"
    );
    assert!(!tracing::enabled!(target: "payments", tracing::Level::INFO));
    let span = tracing::info_span!(target: names::TRACE_TARGET, "work");
    assert!(!span.is_disabled(), "traces do not depend on the filter");
    drop(span);
    telemetry.shutdown().await;
}
