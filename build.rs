//! Compiles `proto/` with protox: messages, gRPC clients and servers, reflection, and validators of the field rules in
//! the proto files.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_protovalidate_types::DESCRIPTOR_POOL as VALIDATE_POOL;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, Value};
use protox::Compiler;
use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};

const PROTO_ROOT: &str = "proto";
/// Messages with cross-field rules, which are in `proto/rules.rs`.
const CROSS_FIELD: &[&str] = &["ordermesh.orders.v1.PlaceOrder"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_ROOT}/ordermesh");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);

    let compiler = compile()?;
    // Encoded by protox, which keeps extensions: the field rules are extensions.
    let descriptors = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(descriptors.as_slice())?;
    fs::write(out_dir.join("contracts.bin"), &descriptors)?;

    let mut config = tonic_prost_build::Config::new();
    config.extern_path(".buf.validate", "::prost_protovalidate::types");
    for message in pool.all_messages().filter(is_ours) {
        let name = message.full_name();
        config.type_attribute(name, "#[derive(::prost_reflect::ReflectMessage)]");
        config.type_attribute(
            name,
            format!(
                "#[prost_reflect(message_name = \"{name}\", descriptor_pool = \"crate::DESCRIPTOR_POOL\")]"
            ),
        );
    }
    tonic_prost_build::configure()
        .include_file("contracts.rs")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;

    prost_protovalidate_build::Builder::new()
        .file_descriptor_set_bytes(without_oneofs(&pool, &descriptors)?)
        .fail_on_runtime_only(true)
        .compile()?;
    let validators = fs::read_to_string(out_dir.join("validate_impl.rs"))?;
    fs::write(out_dir.join("bodies.rs"), bodies(&pool, &validators))?;
    Ok(())
}

fn compile() -> Result<Compiler, Box<dyn Error>> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(PROTO_ROOT.into()));
    // buf/validate/validate.proto comes from the crate that enforces the rules.
    resolver.add(DescriptorSetFileResolver::decode(
        VALIDATE_POOL.encode_to_vec().as_slice(),
    )?);
    resolver.add(GoogleFileResolver::new());

    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    let mut files = Vec::new();
    proto_files(&Path::new(PROTO_ROOT).join("ordermesh"), &mut files)?;
    for file in &files {
        compiler.open_file(file.strip_prefix(PROTO_ROOT)?)?;
    }
    Ok(compiler)
}

fn proto_files(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            proto_files(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    Ok(())
}

fn is_ours(message: &MessageDescriptor) -> bool {
    message.full_name().starts_with("ordermesh.")
}

/// The descriptors without oneofs: the generator of validators does not follow messages inside a oneof. [`bodies`]
/// generates the code for those.
fn without_oneofs(pool: &DescriptorPool, descriptors: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let set = pool
        .get_message_by_name("google.protobuf.FileDescriptorSet")
        .ok_or("descriptor.proto is always imported")?;
    let mut set = DynamicMessage::decode(set, descriptors)?;
    for file in list(&mut set, "file") {
        let Some(file) = file.as_message_mut() else {
            continue;
        };
        let is_ours = file.get_field_by_name("package").is_some_and(|package| {
            package
                .as_str()
                .is_some_and(|p| p.starts_with("ordermesh."))
        });
        if !is_ours {
            continue;
        }
        for message in list(file, "message_type") {
            if let Some(message) = message.as_message_mut() {
                list(message, "field").retain(|field| {
                    field
                        .as_message()
                        .is_some_and(|field| !field.has_field_by_name("oneof_index"))
                });
                list(message, "oneof_decl").clear();
            }
        }
    }
    Ok(set.encode_to_vec())
}

fn list<'a>(message: &'a mut DynamicMessage, field: &str) -> &'a mut Vec<Value> {
    message
        .get_field_by_name_mut(field)
        .and_then(Value::as_list_mut)
        .expect("a repeated field of descriptor.proto")
}

/// Generates `Body` for the oneof of every record: the names of the variants and their field rules.
fn bodies(pool: &DescriptorPool, validators: &str) -> String {
    let mut code = String::new();
    for message in pool.all_messages().filter(is_ours) {
        let Some(oneof) = message.oneofs().next() else {
            continue;
        };
        // State records are written by the engine; their `Body` is written by hand.
        if oneof.name() == "state" {
            continue;
        }
        let path = rust_path(&message);
        let module = snake(path.rsplit("::").next().unwrap_or_default());
        let package = path.rsplit_once("::").map_or("", |(package, _)| package);
        let body = format!("{package}::{module}::{}", camel(oneof.name()));

        let names: Vec<_> = oneof
            .fields()
            .map(|field| field.name().to_owned())
            .collect();
        let mut kinds = String::new();
        let mut checks = String::new();
        for field in oneof.fields() {
            let (variant, kind) = (camel(field.name()), field.name());
            let _ = writeln!(kinds, "            Self::{variant}(_) => \"{kind}\",");
            let _ = writeln!(
                checks,
                "            Self::{variant}(body) => {},",
                check(&field, validators)
            );
        }
        let _ = write!(
            code,
            "impl crate::Body for {body} {{\n    const KINDS: &'static [&'static str] = &{names:?};\n\n    fn kind(&self) -> &'static str {{\n        match self {{\n{kinds}        }}\n    }}\n\n    fn violations(&self) -> Vec<crate::Violation> {{\n        match self {{\n{checks}        }}\n    }}\n}}\n\n"
        );
    }
    code
}

fn check(field: &FieldDescriptor, validators: &str) -> String {
    let kind = field.kind();
    let Some(message) = kind.as_message() else {
        return "{ let _ = body; Vec::new() }".into();
    };
    if CROSS_FIELD.contains(&message.full_name()) {
        "crate::rules::violations(body)".into()
    } else if validators.contains(&format!(
        "::prost_protovalidate::Validate for {} {{",
        rust_path(message)
    )) {
        "crate::rules::field_violations(body)".into()
    } else {
        "{ let _ = body; Vec::new() }".into()
    }
}

fn rust_path(message: &MessageDescriptor) -> String {
    message.full_name().replace('.', "::")
}

fn camel(snake: &str) -> String {
    snake
        .split('_')
        .filter_map(|word| word.split_at_checked(1))
        .flat_map(|(first, rest)| [first.to_uppercase(), rest.to_owned()])
        .collect()
}

fn snake(camel: &str) -> String {
    let mut snake = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
