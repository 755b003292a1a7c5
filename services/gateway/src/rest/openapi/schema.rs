//! JSON Schemas of messages in their canonical JSON.

use std::collections::BTreeMap;

use prost_protovalidate_types::{FieldConstraintsExt as _, FieldRules, OneofConstraintsExt as _};
use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::limits;

/// The schemas that a document refers to, by name.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    /// `None` while a schema is being built, so that a message may contain itself.
    components: BTreeMap<String, Option<Value>>,
}

impl Schemas {
    /// Adds a schema that is not derived from a contract.
    pub(super) fn add(&mut self, name: &str, schema: Value) {
        self.components.insert(name.to_owned(), Some(schema));
    }

    pub(super) fn into_components(self) -> Map<String, Value> {
        self.components
            .into_iter()
            .filter_map(|(name, schema)| Some((name, schema?)))
            .collect()
    }

    /// A reference to a message. Adds its schema and all schemas that it refers to.
    pub(super) fn message(&mut self, message: &MessageDescriptor) -> Value {
        if message.full_name() == "google.protobuf.Timestamp" {
            return json!({"type": "string", "format": "date-time"});
        }
        let name = message.full_name();
        if !self.components.contains_key(name) {
            self.components.insert(name.to_owned(), None);
            let schema = self.object(message, &[]);
            self.components.insert(name.to_owned(), Some(schema));
        }
        reference(name)
    }

    /// The schema of a message. The fields in `optional` are also set elsewhere in the request, so they are not
    /// required.
    pub(super) fn object(&mut self, message: &MessageDescriptor, optional: &[&str]) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in message.fields() {
            properties.insert(field.json_name().to_owned(), self.field(&field));
            if limits::is_required(&rules(&field)) && !optional.contains(&field.name()) {
                required.push(field.json_name().to_owned());
            }
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        if let Some(description) = comment(&message.parent_file(), message.path()) {
            schema["description"] = description.into();
        }
        for oneof in message.oneofs() {
            if oneof.try_is_required().unwrap_or_default() {
                let either = oneof
                    .fields()
                    .map(|field| json!({"required": [field.json_name()]}));
                schema["oneOf"] = either.collect();
            }
        }
        schema
    }

    /// The schema of a field's value, with its limits and comment.
    pub(super) fn field(&mut self, field: &FieldDescriptor) -> Value {
        let rules = rules(field);
        let mut schema = if field.is_list() {
            let mut items = self.value(&field.kind());
            limits::apply(&limits::of_items(&rules), &field.kind(), &mut items);
            json!({"type": "array", "items": items})
        } else {
            self.value(&field.kind())
        };
        limits::apply(&rules, &field.kind(), &mut schema);
        let comment = comment(&field.parent_file(), field.path());
        let description: Vec<_> = comment.into_iter().chain(limits::as_text(&rules)).collect();
        if !description.is_empty() {
            schema["description"] = description.join(" ").into();
        }
        schema
    }

    fn value(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "format": "int32"})
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"})
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({"type": "string", "format": "uint64", "pattern": "^[0-9]+$"})
            }
            Kind::Enum(names) => self.enumeration(names),
            Kind::Message(message) => self.message(message),
        }
    }

    fn enumeration(&mut self, names: &EnumDescriptor) -> Value {
        let all: Vec<_> = names
            .values()
            .map(|value| value.name().to_owned())
            .collect();
        let explained = names.values().filter_map(|value| {
            let comment = comment(&names.parent_file(), value.path())?;
            Some(format!("{}: {comment}", value.name()))
        });
        let comment = comment(&names.parent_file(), names.path());
        let description: Vec<_> = comment.into_iter().chain(explained).collect();
        let mut schema = json!({"type": "string", "enum": all});
        if !description.is_empty() {
            schema["description"] = description.join("\n\n").into();
        }
        self.add(names.full_name(), schema);
        reference(names.full_name())
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn rules(field: &FieldDescriptor) -> FieldRules {
    // The build has already read the same rules to generate validators.
    field.field_constraints().ok().flatten().unwrap_or_default()
}

/// The leading comment of a message, field or method in the contract.
pub(super) fn comment(file: &FileDescriptor, path: &[i32]) -> Option<String> {
    let locations = &file
        .file_descriptor_proto()
        .source_code_info
        .as_ref()?
        .location;
    let location = locations.iter().find(|location| location.path == path)?;
    let lines: Vec<_> = location
        .leading_comments
        .as_deref()?
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Some(lines.join(" ")).filter(|comment| !comment.is_empty())
}
