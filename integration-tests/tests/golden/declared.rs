//! Declarations in the sources: contracts, the SQL schema, environment variables, headers, problem reasons, safeguard
//! names.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use engine::headers;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use regex::Regex;

use super::assert_golden;

#[test]
fn messages_fields_and_methods_are_unchanged() {
    let set = FileDescriptorSet::decode(contracts::DESCRIPTOR_SET).unwrap();
    let mut lines = Vec::new();
    for file in set
        .file
        .iter()
        .filter(|file| file.package().starts_with("ordermesh"))
    {
        lines.push(format!("file {} {}", file.name(), file.package()));
        for message in &file.message_type {
            describe(&mut lines, file.package(), message);
        }
        for listed in &file.enum_type {
            enumerate(&mut lines, file.package(), listed);
        }
        for service in &file.service {
            for method in &service.method {
                lines.push(format!(
                    "method {}.{}/{} {}{} -> {}{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    if method.client_streaming() {
                        "stream "
                    } else {
                        ""
                    },
                    method.input_type(),
                    if method.server_streaming() {
                        "stream "
                    } else {
                        ""
                    },
                    method.output_type(),
                ));
            }
        }
    }
    assert!(lines.len() > 300, "only {} lines", lines.len());
    assert_golden("contracts.txt", &(lines.join("\n") + "\n"));
}

fn describe(lines: &mut Vec<String>, scope: &str, message: &prost_types::DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let group = field
            .oneof_index
            .and_then(|index| message.oneof_decl.get(usize::try_from(index).unwrap()))
            .map_or(String::new(), |group| format!(" in {}", group.name()));
        lines.push(format!(
            "field {name} {} {} {:?} {:?}{} {}{group}",
            field.number(),
            field.name(),
            field.label(),
            field.r#type(),
            field.type_name(),
            field.json_name(),
        ));
    }
    for nested in &message.nested_type {
        describe(lines, &name, nested);
    }
    for listed in &message.enum_type {
        enumerate(lines, &name, listed);
    }
}

fn enumerate(lines: &mut Vec<String>, scope: &str, listed: &prost_types::EnumDescriptorProto) {
    for value in &listed.value {
        lines.push(format!(
            "value {scope}.{} {} {}",
            listed.name(),
            value.number(),
            value.name()
        ));
    }
}

#[test]
fn schemas_tables_and_columns_are_unchanged() {
    let sql = sources(".sql")
        .into_iter()
        .map(|(_, text)| text)
        .collect::<String>();
    let lines = sql.lines().filter_map(|line| {
        let code = line.split("--").next()?.trim_end();
        (!code.is_empty()).then_some(code)
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert!(text.contains("CREATE TABLE"), "{text}");
    assert_golden("schema.sql.txt", &text);
}

#[test]
fn environment_variables_are_unchanged() {
    let name = Regex::new(r"\bORDERMESH_[A-Z][A-Z0-9_]*[A-Z0-9]\b").unwrap();
    let mut names = BTreeSet::new();
    for (path, text) in sources("") {
        let is_product = !path.contains("integration-tests/") && !path.contains("tests");
        if is_product && [".rs", ".yaml"].iter().any(|end| path.ends_with(end)) {
            names.extend(name.find_iter(&text).map(|found| found.as_str().to_owned()));
        }
    }
    // Used by tests only.
    names.retain(|name| !["ORDERMESH_BLESS", "ORDERMESH_STACK"].contains(&name.as_str()));
    assert!(names.len() > 30, "{names:?}");
    assert_golden("environment.txt", &list(names));
}

#[test]
fn problem_reasons_are_unchanged() {
    let reason = Regex::new(r#"pub const [A-Z_]+: &str = "([A-Z][A-Z_]+)";"#).unwrap();
    let mut reasons = BTreeSet::new();
    for (path, text) in sources(".rs") {
        if path.contains("chassis/src") || path.contains("services/") {
            let found = reason.captures_iter(&text).map(|found| found[1].to_owned());
            reasons.extend(found.filter(|name| name != "USD" && !name.starts_with("ORDERMESH_")));
        }
    }
    assert!(reasons.contains("TOO_LATE"), "{reasons:?}");
    assert_golden("reasons.txt", &list(reasons));
}

#[test]
fn record_headers_are_unchanged() {
    let names = [
        headers::TRACEPARENT,
        headers::SOURCE_OFFSET,
        headers::REPLY_TO,
        headers::DEAD_SOURCE_TOPIC,
        headers::DEAD_SOURCE_PARTITION,
        headers::DEAD_SOURCE_OFFSET,
        headers::DEAD_ERROR_CLASS,
        headers::DEAD_ERROR_MESSAGE,
        headers::DEAD_ATTEMPTS,
        headers::DEAD_TIME,
        headers::DEAD_CUT_FROM,
        headers::DEAD_SCHEMA_ID,
    ];
    assert_golden("headers.txt", &list(names.map(str::to_owned)));
}

#[test]
fn safeguard_names_are_unchanged() {
    let seeds = sources("seeds.txt").remove(0).1;
    let names = seeds.lines().filter(|line| !line.starts_with('#'));
    let names = names.map(|line| line.split(' ').next().unwrap().to_owned());
    assert_golden("safeguards.txt", &list(names));
}

/// The tracked files whose path ends with `end`, sorted by path, with their contents.
fn sources(end: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let listed = Command::new("git")
        .arg("-C")
        .arg(&root)
        .arg("ls-files")
        .output()
        .unwrap();
    assert!(listed.status.success(), "git lists the files");
    let paths = String::from_utf8(listed.stdout).unwrap();
    let paths = paths
        .lines()
        .filter(|path| path.ends_with(end) && !path.starts_with("integration-tests/tests/golden/"));
    let read = |path: &str| {
        Some((
            path.to_owned(),
            std::fs::read_to_string(root.join(path)).ok()?,
        ))
    };
    paths.filter_map(read).collect()
}

fn list(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().map(|name| name + "\n").collect()
}
