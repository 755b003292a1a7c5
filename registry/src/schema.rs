//! The schemas as registered: `.proto` text rendered from the descriptors.
//!
//! Comments and field rules are left out. They are not part of the wire contract: a changed comment would make a new
//! version of the schema, which readers would take for a newer contract.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter;

use contracts::{Contract, Inventory, Orders, Payments, Service, Shipping, Topic};
use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor, ReflectMessage as _};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// Import path of the field rules, which do not affect the wire format.
const RULES: &str = "buf/validate/";
/// Import path of the types that every registry and compiler includes.
const BUILT_IN: &str = "google/protobuf/";

/// The record message of a topic; `None` for dead letters, which keep the bytes of their source.
pub fn record(service: Service, topic: Topic) -> Option<MessageDescriptor> {
    match service {
        Service::Orders => record_of::<Orders>(topic),
        Service::Inventory => record_of::<Inventory>(topic),
        Service::Payments => record_of::<Payments>(topic),
        Service::Shipping => record_of::<Shipping>(topic),
    }
}

fn record_of<C: Contract>(topic: Topic) -> Option<MessageDescriptor> {
    match topic {
        Topic::Commands => Some(C::CommandRecord::default().descriptor()),
        Topic::Events => Some(C::EventRecord::default().descriptor()),
        Topic::State => Some(C::StateRecord::default().descriptor()),
        Topic::Outcomes => Some(C::OutcomeRecord::default().descriptor()),
        Topic::Dlq => None,
    }
}

/// The imports of `file` that are registered as subjects.
pub fn references(file: &FileDescriptor) -> impl Iterator<Item = FileDescriptor> {
    let imports: Vec<_> = file
        .dependencies()
        .filter(|import| is_reference(import.name()))
        .collect();
    imports.into_iter()
}

/// Whether an import must be a registered reference.
pub(crate) fn is_reference(import: &str) -> bool {
    !import.starts_with(RULES) && !import.starts_with(BUILT_IN)
}

/// `file` and everything that it imports, directly or not; imports precede the files that need them.
pub fn closure(file: &FileDescriptor) -> Vec<FileDescriptor> {
    fn visit(file: &FileDescriptor, found: &mut Vec<FileDescriptor>) {
        if found.iter().any(|known| known.name() == file.name()) {
            return;
        }
        for import in references(file) {
            visit(&import, found);
        }
        found.push(file.clone());
    }
    let mut found = Vec::new();
    visit(file, &mut found);
    found
}

/// Compiles the text of `file`, whose imports are in `texts` as well, by import path.
///
/// # Errors
///
/// The text or an import is missing or not a valid proto file.
pub fn compile(
    file: &str,
    texts: &BTreeMap<String, String>,
) -> Result<FileDescriptor, protox::Error> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(texts.clone()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file(file)?;
    let pool: DescriptorPool = compiler.descriptor_pool();
    Ok(pool
        .get_file_by_name(file)
        .expect("the file has just been compiled"))
}

struct Texts(BTreeMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let text = self
            .0
            .get(name)
            .ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, text)
    }
}

/// The canonical text of a file of the contracts: proto3, without comments and options.
///
/// Supports what the contracts use; a test renders all of them and compares the descriptors.
pub fn render(file: &FileDescriptor) -> String {
    let file: &FileDescriptorProto = file.file_descriptor_proto();
    let mut writer = ProtoWriter::default();
    writer.line("syntax = \"proto3\";");
    writer.blank();
    writer.line(&format!("package {};", file.package()));
    let imports: Vec<_> = file
        .dependency
        .iter()
        .filter(|import| !import.starts_with(RULES))
        .collect();
    if !imports.is_empty() {
        writer.blank();
    }
    for import in imports {
        writer.line(&format!("import \"{import}\";"));
    }
    for service in &file.service {
        writer.blank();
        writer.service(service);
    }
    for message in &file.message_type {
        writer.blank();
        writer.message(message);
    }
    for enumeration in &file.enum_type {
        writer.blank();
        writer.enumeration(enumeration);
    }
    writer.text
}

#[derive(Default)]
struct ProtoWriter {
    text: String,
    depth: usize,
}

impl ProtoWriter {
    fn line(&mut self, line: &str) {
        self.text.extend(iter::repeat_n("  ", self.depth));
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn open(&mut self, line: &str) {
        self.line(&format!("{line} {{"));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    fn message(&mut self, message: &DescriptorProto) {
        self.open(&format!("message {}", message.name()));
        // The end of a range is exclusive in messages and inclusive in enums.
        let ranges = message
            .reserved_range
            .iter()
            .map(|range| (range.start(), range.end() - 1));
        self.reserved(ranges, MAX_FIELD_NUMBER, &message.reserved_name);
        for nested in &message.nested_type {
            self.message(nested);
        }
        for nested in &message.enum_type {
            self.enumeration(nested);
        }
        let mut fields = message.field.iter().peekable();
        while let Some(field) = fields.next() {
            let Some(index) = oneof(field) else {
                self.field(field);
                continue;
            };
            let name = usize::try_from(index)
                .ok()
                .and_then(|index| message.oneof_decl.get(index));
            self.open(&format!(
                "oneof {}",
                name.map(|oneof| oneof.name()).unwrap_or_default()
            ));
            self.field(field);
            while let Some(member) = fields.next_if(|next| oneof(next) == Some(index)) {
                self.field(member);
            }
            self.close();
        }
        self.close();
    }

    fn field(&mut self, field: &FieldDescriptorProto) {
        let label = match field.label() {
            Label::Repeated => "repeated ",
            _ if field.proto3_optional() => "optional ",
            _ => "",
        };
        self.line(&format!(
            "{label}{} {} = {};",
            type_name(field),
            field.name(),
            field.number()
        ));
    }

    fn enumeration(&mut self, enumeration: &EnumDescriptorProto) {
        self.open(&format!("enum {}", enumeration.name()));
        let ranges = enumeration
            .reserved_range
            .iter()
            .map(|range| (range.start(), range.end()));
        self.reserved(ranges, i32::MAX, &enumeration.reserved_name);
        for value in &enumeration.value {
            self.line(&format!("{} = {};", value.name(), value.number()));
        }
        self.close();
    }

    fn reserved(&mut self, ranges: impl Iterator<Item = (i32, i32)>, max: i32, names: &[String]) {
        let ranges: Vec<_> = ranges
            .map(|(first, last)| match last {
                last if last == first => first.to_string(),
                last if last == max => format!("{first} to max"),
                last => format!("{first} to {last}"),
            })
            .collect();
        let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        for list in [ranges, names] {
            if !list.is_empty() {
                self.line(&format!("reserved {};", list.join(", ")));
            }
        }
    }

    fn service(&mut self, service: &ServiceDescriptorProto) {
        self.open(&format!("service {}", service.name()));
        for method in &service.method {
            let mut line = format!("rpc {}(", method.name());
            let types = [
                (
                    method.client_streaming(),
                    method.input_type(),
                    ") returns (",
                ),
                (method.server_streaming(), method.output_type(), ");"),
            ];
            for (streaming, name, end) in types {
                let stream = if streaming { "stream " } else { "" };
                write!(line, "{stream}{}{end}", relative(name)).expect("a string grows");
            }
            self.line(&line);
        }
        self.close();
    }
}

const MAX_FIELD_NUMBER: i32 = 536_870_911;

/// The oneof of a field, without the synthetic oneof of an `optional` field.
fn oneof(field: &FieldDescriptorProto) -> Option<i32> {
    field.oneof_index.filter(|_| !field.proto3_optional())
}

fn type_name(field: &FieldDescriptorProto) -> &str {
    match field.r#type() {
        Type::Double => "double",
        Type::Float => "float",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Int32 => "int32",
        Type::Fixed64 => "fixed64",
        Type::Fixed32 => "fixed32",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Uint32 => "uint32",
        Type::Sfixed32 => "sfixed32",
        Type::Sfixed64 => "sfixed64",
        Type::Sint32 => "sint32",
        Type::Sint64 => "sint64",
        Type::Group | Type::Message | Type::Enum => relative(field.type_name()),
    }
}

/// A full name without the leading dot, which every registry's parser accepts.
fn relative(name: &str) -> &str {
    name.trim_start_matches('.')
}

#[cfg(test)]
mod tests {
    use contracts::DESCRIPTOR_POOL;

    use super::*;

    fn contract_files() -> Vec<FileDescriptor> {
        let files: Vec<_> = DESCRIPTOR_POOL
            .files()
            .filter(|file| file.name().starts_with("ordermesh/"))
            .collect();
        assert!(
            files.len() >= 26,
            "the contracts have shrunk to {} files",
            files.len()
        );
        files
    }

    fn rendered() -> BTreeMap<String, String> {
        contract_files()
            .iter()
            .map(|file| (file.name().to_owned(), render(file)))
            .collect()
    }

    #[test]
    fn rendered_text_parses_to_the_same_descriptor() {
        let texts = rendered();
        for file in contract_files() {
            let parsed = compile(file.name(), &texts).unwrap();
            assert_eq!(
                without_options(parsed.file_descriptor_proto()),
                without_options(file.file_descriptor_proto())
            );
        }
    }

    #[test]
    fn rendering_supports_constructs_not_used_yet() {
        let text = r#"syntax = "proto3";

package a.v1;

import "google/protobuf/timestamp.proto";

message A {
  reserved 3, 5 to 7, 100 to max;
  reserved "gone", "lost";
  message Inner {
    bytes part = 1;
  }
  enum Colour {
    reserved 4 to max;
    COLOUR_UNSPECIFIED = 0;
    COLOUR_RED = -2;
  }
  optional sint32 maybe = 1;
  repeated fixed64 numbers = 2;
  oneof kind {
    a.v1.A.Inner inner = 10;
    a.v1.A.Colour colour = 11;
  }
  google.protobuf.Timestamp at = 12;
  oneof other {
    bool flag = 13;
  }
}
"#;
        let texts = BTreeMap::from([("a.proto".to_owned(), text.to_owned())]);
        assert_eq!(render(&compile("a.proto", &texts).unwrap()), text);
    }

    #[test]
    fn comments_and_field_rules_are_not_rendered() {
        for (file, text) in rendered() {
            for trace in ["//", "/*", "buf/validate", "buf.validate", "option "] {
                assert!(!text.contains(trace), "{file} contains {trace}");
            }
        }
    }

    #[test]
    fn every_record_is_the_first_message_of_its_file() {
        let mut files = Vec::new();
        for service in Service::ALL {
            for topic in Topic::ALL {
                let Some(record) = record(service, topic) else {
                    assert_eq!(topic, Topic::Dlq);
                    continue;
                };
                assert_eq!(
                    record.path(),
                    [4, 0],
                    "{} is not message [0]",
                    record.full_name()
                );
                files.push(record.parent_file().name().to_owned());
            }
        }
        files.dedup();
        assert_eq!(files.len(), 16, "one file per record: {files:?}");
    }

    #[test]
    fn records_have_no_maps() {
        for file in contract_files() {
            let nested = file
                .messages()
                .flat_map(|message| message.child_messages().collect::<Vec<_>>());
            assert_eq!(
                nested.filter(MessageDescriptor::is_map_entry).count(),
                0,
                "{}",
                file.name()
            );
        }
    }

    #[test]
    fn imports_precede_the_files_that_need_them() {
        let file = record(Service::Shipping, Topic::Events)
            .unwrap()
            .parent_file();
        let names: Vec<_> = closure(&file)
            .iter()
            .map(|file| file.name().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "ordermesh/core/v1/metadata.proto",
                "ordermesh/orders/v1/model.proto",
                "ordermesh/shipping/v1/model.proto",
                "ordermesh/shipping/v1/event.proto",
            ]
        );
    }

    /// The descriptor without what is not rendered.
    fn without_options(file: &FileDescriptorProto) -> FileDescriptorProto {
        fn strip_enum(enumeration: &mut EnumDescriptorProto) {
            enumeration.options = None;
            for value in &mut enumeration.value {
                value.options = None;
            }
        }
        fn strip_message(message: &mut DescriptorProto) {
            message.options = None;
            message
                .field
                .iter_mut()
                .for_each(|field| field.options = None);
            message
                .oneof_decl
                .iter_mut()
                .for_each(|oneof| oneof.options = None);
            message.nested_type.iter_mut().for_each(strip_message);
            message.enum_type.iter_mut().for_each(strip_enum);
        }
        let mut file = file.clone();
        file.options = None;
        file.source_code_info = None;
        file.dependency.retain(|import| !import.starts_with(RULES));
        file.message_type.iter_mut().for_each(strip_message);
        file.enum_type.iter_mut().for_each(strip_enum);
        for service in &mut file.service {
            service.options = None;
            service
                .method
                .iter_mut()
                .for_each(|method| method.options = None);
        }
        file
    }
}
