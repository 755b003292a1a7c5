//! From the bytes of a record to what stands in it.

use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::log::Input;
use registry::{Resolution, Schemas};
use tokio::runtime::Handle;

use crate::content::{self, Content};

/// How long an unknown schema id may take to be looked up.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);
const LOOKUP_EVERY: Duration = Duration::from_millis(20);

/// Reads records by the schemas that they were written with. Blocks while a schema id is looked up: it is for threads
/// that may.
pub struct Decoder {
    schemas: Schemas,
    runtime: Handle,
}

impl Decoder {
    /// A decoder of the topics that `schemas` was loaded with. Call it within a tokio runtime.
    pub fn new(schemas: Schemas) -> Self {
        Self {
            schemas,
            runtime: Handle::current(),
        }
    }

    /// What stands in a record.
    pub fn content(&self, service: Service, topic: Topic, input: &Input) -> Content {
        if topic == Topic::Dlq {
            return Content::DeadLetter;
        }
        let Some(payload) = &input.payload else {
            return Content::Tombstone;
        };
        let framed = match registry::unframe(payload) {
            Ok(framed) => framed,
            Err(error) => return Content::Opaque(error.to_string()),
        };
        let id = framed.schema_id;
        match self.resolution(service, topic, id) {
            // What is newer than this program is shown as far as it knows it.
            Resolution::Known | Resolution::Newer => {
                content::decode(service, topic, framed.payload)
            }
            Resolution::Foreign => {
                Content::Opaque(format!("schema {id} belongs to another subject"))
            }
            Resolution::Unknown => {
                Content::Opaque(format!("the registry does not know schema {id}"))
            }
            Resolution::Pending => {
                Content::Opaque(format!("the registry does not answer about schema {id}"))
            }
        }
    }

    /// Waits for the registry's answer to an id that is new.
    fn resolution(&self, service: Service, topic: Topic, id: u32) -> Resolution {
        let begun = Instant::now();
        loop {
            match self.schemas.resolve(service, topic, id) {
                Resolution::Pending if begun.elapsed() < LOOKUP_PATIENCE => {
                    self.runtime.block_on(tokio::time::sleep(LOOKUP_EVERY));
                }
                resolution => return resolution,
            }
        }
    }
}
