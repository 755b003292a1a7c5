//! What a signal does to a process. One test: a signal reaches the whole test binary.

use std::process::{Command, ExitCode};
use std::time::Duration;

use chassis::Process;

#[tokio::test]
async fn sigterm_ends_the_process_when_its_tasks_have_ended() {
    let process = Process::new();
    let shutdown = process.shutdown();
    // Runs after `run` has begun to listen: this runtime has one thread.
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
