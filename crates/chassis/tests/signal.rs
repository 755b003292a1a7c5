//! The effect of a signal. One test, because a signal reaches the whole test binary.

use std::process::{Command, ExitCode};
use std::time::Duration;

use chassis::Process;

#[tokio::test]
async fn sigterm_ends_the_process_after_its_tasks() {
    let process = Process::new();
    let shutdown = process.shutdown();
    // Runs after `run` has installed the signal handlers: this runtime has one thread.
    process.spawn("task", async move {
        let own_id = std::process::id().to_string();
        let sent = Command::new("kill").args(["-TERM", &own_id]).status();
        assert!(sent.expect("there is such a command").success());
        shutdown.cancelled().await;
    });
    assert_eq!(
        process.run(Duration::from_secs(30)).await,
        ExitCode::SUCCESS
    );
}
