//! Old records and old schemas stay readable: the current code against `corpus/` and `baseline/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use contracts::{
    Body as _, Contract, Inventory, Orders, Payments, Record, Service, Shipping, Topic,
};
use contracts::{Validate as _, core::v1::Metadata};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use registry::compatibility::violations;
use registry::schema::{closure, compile, record, render};

/// When set, missing entries are written instead of failing; see `corpus/README.md`.
const BLESS: &str = "ORDERMESH_BLESS";

fn blessing() -> bool {
    env::var_os(BLESS).is_some()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A record type of a topic.
struct RecordType {
    topic: String,
    message: MessageDescriptor,
    /// Decodes, checks the field rules and re-encodes.
    round_trip: fn(&[u8]) -> Result<Vec<u8>, String>,
}

fn record_types() -> Vec<RecordType> {
    let mut types = Vec::new();
    record_types_of::<Orders>(&mut types);
    record_types_of::<Inventory>(&mut types);
    record_types_of::<Payments>(&mut types);
    record_types_of::<Shipping>(&mut types);
    types
}

fn record_types_of<C: Contract>(types: &mut Vec<RecordType>) {
    types.push(record_type::<C::CommandRecord>(C::SERVICE, Topic::Commands));
    types.push(record_type::<C::EventRecord>(C::SERVICE, Topic::Events));
    types.push(record_type::<C::StateRecord>(C::SERVICE, Topic::State));
    types.push(record_type::<C::OutcomeRecord>(C::SERVICE, Topic::Outcomes));
}

fn record_type<R: Record>(service: Service, topic: Topic) -> RecordType {
    let message = R::default().descriptor();
    RecordType {
        topic: topic.of(service, ""),
        message,
        round_trip: round_trip::<R>,
    }
}

fn round_trip<R: Record>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let record = R::decode(bytes).map_err(|error| error.to_string())?;
    let (metadata, body): (Metadata, R::Body) = record
        .clone()
        .into_parts()
        .ok_or("metadata or body is missing")?;
    metadata.validate().map_err(|error| error.to_string())?;
    // Readers check field rules too: a stricter rule would turn old records into poison.
    let violations = body.violations();
    if !violations.is_empty() {
        return Err(format!("{} violates {violations:?}", body.kind()));
    }
    Ok(record.encode_to_vec())
}

/// A record of the corpus: the variant of its `oneof`, and its bytes.
type Example = (String, Vec<u8>);

fn read_examples(file: &Path) -> Vec<Example> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let parse = |line: &str| {
        let (variant, bytes) = line.split_once(' ')?;
        Some((variant.to_owned(), hex::decode(bytes).ok()?))
    };
    text.lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("{}: bad line {line:?}", file.display())))
        .collect()
}

#[test]
fn every_record_of_the_corpus_decodes_and_encodes_to_the_same_bytes() {
    for RecordType {
        topic,
        message,
        round_trip,
    } in record_types()
    {
        let file = folder("corpus").join(format!("{topic}.hex"));
        if blessing() {
            append_missing(&file, &message);
        }
        let mut variants = BTreeSet::new();
        for (variant, bytes) in read_examples(&file) {
            let reencoded =
                round_trip(&bytes).unwrap_or_else(|error| panic!("{topic}: {variant}: {error}"));
            assert_eq!(
                hex::encode(reencoded),
                hex::encode(&bytes),
                "{topic}: {variant} changed its bytes"
            );
            let dynamic = DynamicMessage::decode(message.clone(), bytes.as_slice()).unwrap();
            let field = message.get_field_by_name(&variant);
            let field = field.unwrap_or_else(|| panic!("{topic}: {variant} was renamed"));
            assert!(
                dynamic.has_field(&field),
                "{topic}: {variant} decodes as another variant"
            );
            variants.insert(variant);
        }
        let expected: BTreeSet<_> = variants_of(&message)
            .map(|field| field.name().to_owned())
            .collect();
        assert_eq!(
            variants, expected,
            "{topic}: set {BLESS}=1 to add examples of new variants"
        );
    }
}

#[test]
fn the_contracts_contain_the_baseline() {
    let mut files = BTreeMap::new();
    for service in Service::ALL {
        for record in Topic::ALL
            .into_iter()
            .filter_map(|topic| record(service, topic))
        {
            for file in closure(&record.parent_file()) {
                files.insert(file.name().to_owned(), file);
            }
        }
    }
    let baseline = folder("baseline");
    let kept: BTreeMap<_, _> = files
        .keys()
        .filter_map(|name| Some((name.clone(), fs::read_to_string(baseline.join(name)).ok()?)))
        .collect();
    for name in kept.keys() {
        let old =
            compile(name, &kept).unwrap_or_else(|error| panic!("baseline of {name}: {error}"));
        let found: Vec<_> = violations(&old, &files[name])
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            found.is_empty(),
            "{name} breaks what was written before:\n{}",
            found.join("\n")
        );
    }
    // Only after the check: a baseline that is overwritten first would hide every violation.
    for (name, file) in &files {
        let text = render(file);
        if blessing() {
            let path = baseline.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        } else {
            assert_eq!(
                kept.get(name),
                Some(&text),
                "{name} has changed: set {BLESS}=1 to update the baseline"
            );
        }
    }
}

fn variants_of(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> {
    message
        .oneofs()
        .next()
        .unwrap()
        .fields()
        .collect::<Vec<_>>()
        .into_iter()
}

/// Old examples are never changed: they are what old programs wrote.
fn append_missing(file: &Path, message: &MessageDescriptor) {
    let mut examples = read_examples(file);
    for variant in variants_of(message) {
        let example = (
            variant.name().to_owned(),
            example(message, &variant).encode_to_vec(),
        );
        if !examples.contains(&example) {
            examples.push(example);
        }
    }
    let mut text = String::new();
    for (variant, bytes) in examples {
        writeln!(text, "{variant} {}", hex::encode(bytes)).unwrap();
    }
    fs::write(file, text).unwrap();
}

/// A record of this variant with every field set.
fn example(message: &MessageDescriptor, variant: &FieldDescriptor) -> DynamicMessage {
    let mut example = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if field.containing_oneof().is_none() || &field == variant {
            example.set_field(&field, value(&field));
        }
    }
    example
}

fn value(field: &FieldDescriptor) -> Value {
    let value = match field.kind() {
        Kind::Message(message) => {
            let mut inner = DynamicMessage::new(message.clone());
            message
                .fields()
                .for_each(|field| inner.set_field(&field, value(&field)));
            Value::Message(inner)
        }
        Kind::Enum(enumeration) => Value::EnumNumber(enumeration.values().last().unwrap().number()),
        Kind::String => Value::String(text(field.name())),
        Kind::Bytes => Value::Bytes(vec![0xab; 32].into()),
        Kind::Bool => Value::Bool(true),
        Kind::Int64 => Value::I64(field.number().into()),
        Kind::Uint64 => Value::U64(field.number().into()),
        Kind::Uint32 => Value::U32(field.number()),
        other => panic!("{}: no example of a {other:?} yet", field.full_name()),
    };
    if field.is_list() {
        Value::List(vec![value])
    } else {
        value
    }
}

/// A value that the field rules of a field of this name accept.
fn text(name: &str) -> String {
    match name {
        "currency" => "EUR".to_owned(),
        "country" => "DE".to_owned(),
        "email" => "someone@example.org".to_owned(),
        name if name == "id" || name.ends_with("_id") => {
            "0190a5d3-1c6e-7f2b-9c3d-5a8f0e4b7d21".to_owned()
        }
        name => name.to_owned(),
    }
}
