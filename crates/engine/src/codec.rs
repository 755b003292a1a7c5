//! Encodes and decodes records: framing, schema ids, field rules.

use contracts::core::v1::Metadata;
use contracts::{Body as _, Contract, Message, Record, Service, Topic, Violation};
use registry::{Resolution, Schemas};

use crate::log::Input;
use crate::log::limits::MAX_RECORD_BYTES;

/// Why a record can never be decoded; it becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// Class of the error, for metrics and headers.
    pub class: &'static str,
    /// Description of the error.
    pub message: String,
    /// The schema id in its frame, when there is one.
    pub schema_id: Option<u32>,
}

/// Why a record cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// It can never be decoded.
    Poison(Poison),
    /// Its schema, with this id, is registered, but this binary does not contain it: decoding would drop fields.
    Newer(u32),
    /// The registry has not resolved this schema id yet.
    Pending(u32),
}

/// Decodes and encodes the records of one contract, and encodes messages to other services.
#[derive(Clone)]
pub struct Codec {
    schemas: Schemas,
}

impl Codec {
    /// A codec with the schema ids of `schemas`.
    pub fn new(schemas: Schemas) -> Self {
        Self { schemas }
    }

    /// The schema ids.
    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    /// Frames and encodes a record of `service`.
    pub fn encode<R: Record>(&self, service: Service, topic: Topic, record: &R) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(6 + record.encoded_len());
        bytes.extend_from_slice(&registry::frame_header(
            self.schemas.writer_id(service, topic),
        ));
        record.encode(&mut bytes).expect("a vector grows");
        bytes
    }

    /// Frames and encodes a message to another service.
    pub fn encode_message(&self, message: Message, metadata: Metadata) -> Vec<u8> {
        let id = self.schemas.writer_id(message.service(), Topic::Commands);
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&registry::frame_header(id));
        message.encode(metadata, &mut bytes);
        bytes
    }

    /// Decodes a command and checks its field rules.
    ///
    /// # Errors
    ///
    /// See [`Undecodable`].
    pub fn command<C: Contract>(
        &self,
        input: &Input,
    ) -> Result<(Metadata, C::Command), Undecodable> {
        let (schema_id, metadata, body) =
            self.decode_framed::<C::CommandRecord>(C::SERVICE, Topic::Commands, input)?;
        let mut violations = contracts::rules::field_violations(&metadata);
        violations.extend(body.violations());
        if violations.is_empty() {
            Ok((metadata, body))
        } else {
            Err(Undecodable::Poison(Poison {
                class: "invalid",
                message: describe(&violations),
                schema_id: Some(schema_id),
            }))
        }
    }

    /// Decodes a record of one of the service's own topics.
    ///
    /// # Errors
    ///
    /// See [`Undecodable`].
    pub fn decode<R: Record>(
        &self,
        service: Service,
        topic: Topic,
        input: &Input,
    ) -> Result<(Metadata, R::Body), Undecodable> {
        self.decode_framed::<R>(service, topic, input)
            .map(|(_, metadata, body)| (metadata, body))
    }

    fn decode_framed<R: Record>(
        &self,
        service: Service,
        topic: Topic,
        input: &Input,
    ) -> Result<(u32, Metadata, R::Body), Undecodable> {
        let poison = |class, message: String, schema_id| {
            Undecodable::Poison(Poison {
                class,
                message,
                schema_id,
            })
        };
        let framed = registry::unframe(input.payload.as_deref().unwrap_or_default())
            .map_err(|error| poison("unframed", error.to_string(), None))?;
        let id = framed.schema_id;
        match self.schemas.resolve(service, topic, id) {
            Resolution::Known => {}
            Resolution::Newer => return Err(Undecodable::Newer(id)),
            Resolution::Pending => return Err(Undecodable::Pending(id)),
            Resolution::Foreign => {
                return Err(poison(
                    "foreign-schema",
                    "its schema belongs to another subject".into(),
                    Some(id),
                ));
            }
            Resolution::Unknown => {
                return Err(poison(
                    "unknown-schema",
                    "the registry does not know its schema".into(),
                    Some(id),
                ));
            }
        }
        let record = R::decode(framed.payload)
            .map_err(|error| poison("undecodable", error.to_string(), Some(id)))?;
        let (metadata, body) = record
            .into_parts()
            .ok_or_else(|| poison("empty", "metadata or body is missing".into(), Some(id)))?;
        Ok((id, metadata, body))
    }
}

/// Whether the log rejects a record with this payload as too large.
pub fn too_large(payload: &[u8]) -> bool {
    payload.len() + 4_096 > MAX_RECORD_BYTES
}

/// Violations on one line.
pub fn describe(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
