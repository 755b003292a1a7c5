//! Decodes the bytes of records.

use std::time::{Duration, Instant};

use contracts::{Service, Topic};
use engine::log::Input;
use registry::{Resolution, Schemas};
use tokio::runtime::Handle;

use crate::content::{self, Content};

/// Longest wait for the lookup of an unknown schema id.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOKUP_INTERVAL: Duration = Duration::from_millis(20);

/// Decodes records with the schemas that they were written with. Blocks while a schema id is looked up, so it needs a
/// thread that may block.
pub struct Decoder {
    schemas: Schemas,
    runtime: Handle,
}

impl Decoder {
    /// A decoder for the topics of `schemas`. Call it within a tokio runtime.
    pub fn new(schemas: Schemas) -> Self {
        Self {
            schemas,
            runtime: Handle::current(),
        }
    }

    /// Decodes the content of a record.
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
            // A newer record is decoded as far as this program knows its fields.
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

    /// Resolves a schema id; waits while the registry looks it up.
    fn resolution(&self, service: Service, topic: Topic, id: u32) -> Resolution {
        let start = Instant::now();
        loop {
            match self.schemas.resolve(service, topic, id) {
                Resolution::Pending if start.elapsed() < LOOKUP_TIMEOUT => {
                    self.runtime.block_on(tokio::time::sleep(LOOKUP_INTERVAL));
                }
                resolution => return resolution,
            }
        }
    }
}
