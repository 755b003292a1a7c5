//! The readiness and liveness of a process and of its components.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const STARTING: &str = "starting";

/// The readiness of a process. It is ready while all its components are ready and it is not shutting down; without
/// components it is not ready. Clones share one state.
#[derive(Clone, Debug)]
pub struct Readiness {
    report: watch::Sender<Report>,
}

/// The readiness of a process and of its components.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// All components are ready, and the process is not shutting down.
    pub ready: bool,
    /// The process takes no new work.
    pub shutting_down: bool,
    /// By component: `null` when ready, otherwise the reason.
    pub components: BTreeMap<String, Option<String>>,
    /// Components that only a restart of the process repairs, with the reason.
    #[serde(skip)]
    pub not_live: BTreeMap<String, String>,
    /// What each component reported last: `None` when ready, otherwise the reason. A component whose loop stalls cannot
    /// report that itself.
    #[serde(skip)]
    pub reported: BTreeMap<String, Option<String>>,
    /// Components whose loops stall, with the reason.
    #[serde(skip)]
    pub stalled: BTreeMap<String, String>,
}

impl Report {
    fn update_ready(&mut self) {
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
    /// Registers a component, which is not ready yet. A second component with the same name replaces the first.
    pub fn component(&self, name: impl Into<String>) -> Component {
        let component = Component {
            name: name.into(),
            report: self.report.clone(),
        };
        component.not_ready(STARTING);
        component
    }

    /// Whether the process is ready.
    pub fn is_ready(&self) -> bool {
        self.report.borrow().ready
    }

    /// The current report.
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Subscribes to the report.
    pub fn watch(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// The first component that only a restart of the process repairs, with the reason.
    pub fn not_live(&self) -> Option<String> {
        let report = self.report.borrow();
        let (name, reason) = report.not_live.first_key_value()?;
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
            report.update_ready();
        });
    }
}

/// A handle with which a component reports its readiness. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Component {
    name: String,
    report: watch::Sender<Report>,
}

impl Component {
    /// The component can do its work.
    pub fn ready(&self) {
        self.set_reported(None);
    }

    /// The component cannot do its work; `reason` is for operators, lower case.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set_reported(Some(reason.into()));
    }

    /// The component's loop stalls; this overrides what the component reported. With `not_live`, only a restart of the
    /// process repairs it, and the process is not live.
    pub fn set_stalled(&self, reason: String, not_live: bool) {
        self.update(|report| {
            if not_live {
                report.not_live.insert(self.name.clone(), reason.clone());
            }
            report.stalled.insert(self.name.clone(), reason);
        });
    }

    /// The component's loop makes progress: what the component reported applies again.
    pub fn clear_stalled(&self) {
        self.update(|report| {
            report.stalled.remove(&self.name);
            report.not_live.remove(&self.name);
        });
    }

    fn set_reported(&self, reason: Option<String>) {
        self.update(|report| {
            report.reported.insert(self.name.clone(), reason);
        });
    }

    fn update(&self, update: impl FnOnce(&mut Report)) {
        self.report.send_if_modified(|report| {
            let before = (
                report.components.get(&self.name).cloned(),
                report.not_live.contains_key(&self.name),
            );
            update(report);
            let reported = report.reported.get(&self.name).cloned().flatten();
            let reason = report.stalled.get(&self.name).cloned().or(reported);
            report.components.insert(self.name.clone(), reason);
            report.update_ready();
            let after = (
                report.components.get(&self.name).cloned(),
                report.not_live.contains_key(&self.name),
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
    fn subscribers_receive_only_changes() {
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
