//! Signals to processes that tests have started.

use std::fs;
use std::process::Command;

use crate::eventually::eventually;

/// Holds a process where it stands.
pub const STOP: &str = "-STOP";
/// Lets it go on.
pub const CONTINUE: &str = "-CONT";

/// Sends a signal; whether all were there to take it. [`STOP`] only asks for what it does, and on a busy machine a
/// thread may still answer what was sent behind it: so it is waited for until all threads stand.
///
/// # Panics
///
/// When a process does not stop.
pub fn send(signal: &str, ids: &[&str]) -> bool {
    let sent = Command::new("kill").arg(signal).args(ids).output();
    let sent = sent.expect("kill can be run").status.success();
    if signal == STOP {
        eventually("every thread stands", || {
            ids.iter().all(|id| stands(id)).then_some(())
        });
    }
    sent
}

/// Whether no thread of a process runs, because it was stopped or has ended.
fn stands(id: &str) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Behind the name, which may contain anything.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_none_or(|state| state.starts_with(['T', 'Z', 'X']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_stopped_stands() {
        let mut busy = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let id = busy.id().to_string();
        assert!(!stands(&id));
        assert!(send(STOP, &[&id]) && stands(&id));
        assert!(send(CONTINUE, &[&id]));
        eventually("it goes on", || (!stands(&id)).then_some(()));
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(stands(&id) && !send(CONTINUE, &[&id]));
    }
}
