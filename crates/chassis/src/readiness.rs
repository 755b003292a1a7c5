//! Whether the process is ready for work, and what keeps it from being.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const STARTING: &str = "starting";

/// The readiness of a process: of all its components, until it shuts down. A process without components is not
/// ready. Clones share one state.
#[derive(Clone, Debug)]
pub struct Readiness {
    report: watch::Sender<Report>,
}

/// What is ready and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// All components are ready, and the process is not shutting down.
    pub ready: bool,
    /// The process takes no more work.
    pub shutting_down: bool,
    /// By component: `null` when ready, else the reason why it is not.
    pub components: BTreeMap<String, Option<String>>,
    /// Components that nothing but a restart of the process helps, and why.
    #[serde(skip)]
    pub stuck: BTreeMap<String, String>,
    /// What the components say of themselves; one whose loop stalls cannot say so.
    #[serde(skip)]
    pub told: BTreeMap<String, Option<String>>,
    /// Components whose loops stall.
    #[serde(skip)]
    pub stalled: BTreeMap<String, String>,
}

impl Report {
    fn settle(&mut self) {
        let components_ready = self.components.values().all(Option::is_none);
        self.ready = components_ready && !self.components.is_empty() && !self.shutting_down;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            report: watch::Sender::new(Report::default()),
        }
    }
}

impl Readiness {
    /// Registers a component, which is not ready yet. A second one of the same name takes the place of the first.
    pub fn component(&self, name: impl Into<String>) -> Component {
        let component = Component {
            name: name.into(),
            report: self.report.clone(),
        };
        component.not_ready(STARTING);
        component
    }

    /// Whether the process is ready now.
    pub fn is_ready(&self) -> bool {
        self.report.borrow().ready
    }

    /// What is ready now and what is not.
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Follows the report.
    pub fn watch(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// The first component that nothing but a restart of the process helps, and why.
    pub fn stuck(&self) -> Option<String> {
        let report = self.report.borrow();
        let (name, reason) = report.stuck.first_key_value()?;
        Some(format!("{name}: {reason}"))
    }

    /// Waits until the process is ready.
    pub async fn wait_ready(&self) {
        // Never closed while `self` holds a sender.
        let _ = self.watch().wait_for(|report| report.ready).await;
    }

    pub(crate) fn shut_down(&self) {
        self.report.send_modify(|report| {
            report.shutting_down = true;
            report.settle();
        });
    }
}

/// A component's hand on the readiness of its process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Component {
    name: String,
    report: watch::Sender<Report>,
}

impl Component {
    /// The component can do its work.
    pub fn ready(&self) {
        self.tell(None);
    }

    /// The component cannot do its work; `reason` is for operators, lower case.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.tell(Some(reason.into()));
    }

    /// The component's loop stalls, whatever it has said of itself before. When it `is_stuck`, nothing but a restart of
    /// the process helps, and the process is not live.
    pub fn stalls(&self, reason: String, is_stuck: bool) {
        self.change(|report| {
            if is_stuck {
                report.stuck.insert(self.name.clone(), reason.clone());
            }
            report.stalled.insert(self.name.clone(), reason);
        });
    }

    /// The component's loop goes on.
    pub fn goes_on(&self) {
        self.change(|report| {
            report.stalled.remove(&self.name);
            report.stuck.remove(&self.name);
        });
    }

    fn tell(&self, reason: Option<String>) {
        self.change(|report| {
            report.told.insert(self.name.clone(), reason);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_if_modified(|report| {
            let before = (
                report.components.get(&self.name).cloned(),
                report.stuck.contains_key(&self.name),
            );
            change(report);
            let told = report.told.get(&self.name).cloned().flatten();
            let reason = report.stalled.get(&self.name).cloned().or(told);
            report.components.insert(self.name.clone(), reason);
            report.settle();
            let after = (
                report.components.get(&self.name).cloned(),
                report.stuck.contains_key(&self.name),
            );
            before != after
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_all_its_components_are() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        let (log, database) = (readiness.component("log"), readiness.component("database"));
        log.ready();
        database.not_ready("connecting");
        assert!(!readiness.is_ready());
        assert_eq!(
            readiness.report().components["database"].as_deref(),
            Some("connecting")
        );
        database.ready();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_process_that_shuts_down_is_never_ready_again() {
        let readiness = Readiness::default();
        let log = readiness.component("log");
        log.ready();
        readiness.shut_down();
        assert!(!readiness.is_ready());
        log.ready();
        assert!(!readiness.is_ready());
    }

    #[test]
    fn followers_hear_changes_only() {
        let readiness = Readiness::default();
        let log = readiness.component("log");
        let mut watch = readiness.watch();
        watch.mark_unchanged();
        log.not_ready(STARTING);
        assert!(!watch.has_changed().expect("the sender lives"));
        log.ready();
        assert!(watch.has_changed().expect("the sender lives"));
    }
}
