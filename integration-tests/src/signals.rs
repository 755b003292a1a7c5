//! Signals to processes that tests have started.

use std::fs;
use std::process::Command;

use crate::eventually::eventually;

/// Suspends a process.
pub const STOP: &str = "-STOP";
/// Resumes a suspended process.
pub const CONTINUE: &str = "-CONT";

/// Sends a signal to processes. Returns whether all of them existed. [`STOP`] takes effect asynchronously, and on a
/// busy machine a thread may still answer a later request; therefore the function waits until all threads have stopped.
///
/// # Panics
///
/// When a process does not stop.
pub fn send(signal: &str, ids: &[&str]) -> bool {
    let sent = Command::new("kill").arg(signal).args(ids).output();
    let sent = sent.expect("kill can be run").status.success();
    if signal == STOP {
        eventually("every thread is stopped", || {
            ids.iter().all(|id| is_stopped(id)).then_some(())
        });
    }
    sent
}

/// Whether no thread of a process runs, because the process is suspended or has ended.
fn is_stopped(id: &str) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which may contain any character.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_none_or(|state| state.starts_with(['T', 'Z', 'X']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signalled_process_stops() {
        let mut busy = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let id = busy.id().to_string();
        assert!(!is_stopped(&id));
        assert!(send(STOP, &[&id]) && is_stopped(&id));
        assert!(send(CONTINUE, &[&id]));
        eventually("the process resumes", || (!is_stopped(&id)).then_some(()));
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(is_stopped(&id) && !send(CONTINUE, &[&id]));
    }
}
