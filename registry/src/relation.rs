//! Comparison of a registered version with the contracts of this binary.

use std::collections::BTreeMap;

use prost_reflect::FileDescriptor;
use protox::file::File;

use crate::client::Reference;
use crate::compatibility::{self, Violation};
use crate::schema::compile;

/// The relation of a registered version to the contracts of this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// The contracts of this binary contain it.
    Contained,
    /// It contains the contracts of this binary and more.
    Newer,
    /// Neither contains the other.
    Diverged(Vec<Violation>),
}

/// A registered file: its text, and the import paths that were registered as its references.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub file: String,
    pub text: String,
    pub references: Vec<String>,
}

impl Source {
    pub fn new(file: &str, text: String, references: &[Reference]) -> Self {
        let references = references
            .iter()
            .map(|reference| reference.name.clone())
            .collect();
        Self {
            file: file.to_owned(),
            text,
            references,
        }
    }
}

/// Compares a registered schema, the first of `sources`, with `ours`. `record` is the message of the subject's
/// records; `None` for a subject that is only imported.
pub(crate) fn relation(
    sources: &[Source],
    ours: &FileDescriptor,
    record: Option<&str>,
) -> Relation {
    let registered = match compile_sources(sources) {
        Ok(registered) => registered,
        Err(violations) => return Relation::Diverged(violations),
    };
    let first_message = |file| record.and_then(|record| compatibility::first_message(file, record));
    let mut violations = compatibility::violations(&registered, ours);
    if let Some(violation) = first_message(&registered) {
        violations.push(violation);
        return Relation::Diverged(violations);
    }
    if violations.is_empty() {
        Relation::Contained
    } else if compatibility::violations(ours, &registered).is_empty() {
        Relation::Newer
    } else {
        Relation::Diverged(violations)
    }
}

fn compile_sources(sources: &[Source]) -> Result<FileDescriptor, Vec<Violation>> {
    let head = sources.first().map_or("", |source| source.file.as_str());
    let unreadable = |file: &str, error: protox::Error| {
        vec![Violation::Unreadable {
            file: file.to_owned(),
            reason: error.to_string(),
        }]
    };
    let mut violations = Vec::new();
    let mut texts = BTreeMap::new();
    for Source {
        file,
        text,
        references,
    } in sources
    {
        let parsed = File::from_source(file, text).map_err(|error| unreadable(file, error))?;
        let imports = parsed
            .file_descriptor_proto()
            .dependency
            .iter()
            .map(String::as_str);
        let references: Vec<_> = references.iter().map(String::as_str).collect();
        violations.extend(compatibility::missing_references(
            file,
            imports,
            &references,
        ));
        texts.insert(file.clone(), text.clone());
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    compile(head, &texts).map_err(|error| unreadable(head, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "message M { bool a = 1; bool b = 2; }";

    fn source(body: &str) -> Source {
        let text = format!("syntax = \"proto3\"; package a.v1; {body}");
        Source {
            file: "a.proto".to_owned(),
            text,
            references: Vec::new(),
        }
    }

    fn relation_of(body: &str) -> Relation {
        let ours = compile_sources(&[source(OURS)]).unwrap();
        relation(&[source(body)], &ours, Some("a.v1.M"))
    }

    #[test]
    fn older_and_equal_versions_are_contained() {
        assert_eq!(relation_of(OURS), Relation::Contained);
        assert_eq!(
            relation_of("message M { bool a = 1; }"),
            Relation::Contained
        );
    }

    #[test]
    fn a_superset_of_our_contracts_is_newer() {
        for body in [
            "message M { bool a = 1; bool b = 2; bool c = 3; }",
            "message M { bool a = 1; bool b = 2; } message N {}",
            "message M { reserved 2; reserved \"b\"; bool a = 1; }",
        ] {
            assert_eq!(relation_of(body), Relation::Newer, "{body}");
        }
    }

    #[test]
    fn versions_that_do_not_contain_each_other_are_diverged() {
        for body in [
            "message M { bool a = 1; bool c = 3; }",
            "message M { bool z = 1; bool b = 2; }",
            "message N {} message M { bool a = 1; }",
            "message M { bool a = 1; ",
            "import \"b.proto\"; message M { bool a = 1; }",
            "import \"buf/validate/validate.proto\"; message M { bool a = 1; }",
        ] {
            assert!(matches!(relation_of(body), Relation::Diverged(_)), "{body}");
        }
    }

    #[test]
    fn an_import_without_reference_is_reported_even_when_its_text_is_present() {
        let mut registered = source("import \"b.proto\"; message M { b.B a = 1; }");
        let imported = Source {
            file: "b.proto".to_owned(),
            text: "syntax = \"proto3\"; package b; message B {}".to_owned(),
            references: Vec::new(),
        };
        let missing = Violation::ImportNotReferenced {
            file: "a.proto".to_owned(),
            import: "b.proto".to_owned(),
        };
        assert_eq!(
            compile_sources(&[registered.clone(), imported.clone()]).unwrap_err(),
            [missing]
        );
        registered.references.push("b.proto".to_owned());
        assert!(compile_sources(&[registered, imported]).is_ok());
    }
}
