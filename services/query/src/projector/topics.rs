//! The names of the events topics.

use contracts::{Service, Topic};

use super::log::Source;

/// The full names of the four events topics.
#[derive(Clone, Debug)]
pub struct Topics {
    names: [(Service, String); 4],
    group: String,
}

impl Topics {
    /// The topics with a prefix.
    pub fn new(prefix: &str) -> Self {
        Self {
            names: Service::ALL.map(|service| (service, Topic::Events.of(service, prefix))),
            group: format!("{prefix}query"),
        }
    }

    /// The name of a service's events topic.
    pub fn of(&self, service: Service) -> &str {
        self.names
            .iter()
            .find_map(|(owner, name)| (*owner == service).then_some(name.as_str()))
            .expect("every service has an events topic")
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.names.iter().map(|(_, name)| name.clone()).collect()
    }

    /// The source of a topic's partition; `None` when it is not an events topic.
    pub fn source(&self, topic: &str, partition: i32) -> Option<Source> {
        self.names
            .iter()
            .find_map(|(service, name)| (name == topic).then_some((*service, partition)))
    }

    /// Group id of the client, and prefix of its client id.
    pub fn group(&self) -> &str {
        &self.group
    }
}
