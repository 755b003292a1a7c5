//! Helper processes of a test, such as Prometheus, that are killed with their owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Root folder of the repository.
pub(crate) const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Path of a program that `stack install --telemetry` has fetched or built.
///
/// # Errors
///
/// A message with the path when the program is missing.
pub(crate) fn installed(path: &str) -> Result<PathBuf, String> {
    let program = Path::new(PROJECT).join(".stack/cache").join(path);
    let missing = format!(
        "{} is missing: compose/native/stack install --telemetry",
        program.display()
    );
    program.exists().then_some(program).ok_or(missing)
}

/// A child process that is killed when the value is dropped. Its last log lines are printed when the test fails.
pub(crate) struct ChildProcess {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl ChildProcess {
    /// Starts the process. Its output goes to a log file in `folder`.
    pub(crate) fn start(name: &'static str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::create(&log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("it can be run");
        Self { name, child, log }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            println!("--- {}\n{last}", self.name);
        }
    }
}
