//! States of the components of a process, for operators: `/state` on the admin port.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

type Observe = Box<dyn Fn() -> Value + Send>;

/// The components that show their state. Clones share one set.
#[derive(Clone, Default)]
pub struct States {
    components: Arc<Mutex<BTreeMap<String, Observe>>>,
}

impl States {
    /// Adds a component; `observe` is called for each request and must not block. A second component with the same name replaces
    /// the first.
    pub fn add<S: Serialize>(
        &self,
        name: impl Into<String>,
        observe: impl Fn() -> S + Send + 'static,
    ) {
        let observe = Box::new(move || json!(observe()));
        self.components.lock().insert(name.into(), observe);
    }

    /// The current state of each component.
    pub fn collect(&self) -> BTreeMap<String, Value> {
        let components = self.components.lock();
        components
            .iter()
            .map(|(name, observe)| (name.clone(), observe()))
            .collect()
    }
}

impl fmt::Debug for States {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(self.components.lock().keys())
            .finish()
    }
}
