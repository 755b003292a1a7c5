//! For each rule a refused change and a similar change that is allowed.

use std::collections::BTreeMap;

use contracts::{Service, Topic};

use super::*;
use crate::schema::{self, compile};

const FILE: &str = "a/v1/a.proto";

/// Compiles the body of a file of package `a.v1`.
fn file(body: &str) -> FileDescriptor {
    let text = format!("syntax = \"proto3\";\npackage a.v1;\n{body}");
    compile(FILE, &BTreeMap::from([(FILE.to_owned(), text)])).unwrap()
}

fn violations_between(old: &str, new: &str) -> Vec<Violation> {
    violations(&file(old), &file(new))
}

fn owned(name: &str) -> String {
    name.to_owned()
}

#[test]
fn additions_are_allowed() {
    let old = "message M { reserved 9; string a = 1; oneof k { A x = 10; } } message A {} enum E { Z = 0; }";
    let cases = [
        ("nothing", old),
        (
            "a field",
            "message M { reserved 9; string a = 1; repeated int64 b = 2; oneof k { A x = 10; } } \
             message A { bool c = 1; } enum E { Z = 0; }",
        ),
        (
            "a oneof member",
            "message M { reserved 9; string a = 1; oneof k { A x = 10; bool y = 11; } } message A {} enum E { Z = 0; }",
        ),
        (
            "a oneof",
            "message M { reserved 9; string a = 1; oneof k { A x = 10; } oneof l { bool y = 11; } } \
             message A {} enum E { Z = 0; }",
        ),
        (
            "a message, an enum and an enum value",
            "message M { reserved 9; string a = 1; oneof k { A x = 10; } message N {} } message A {} \
             enum E { Z = 0; Y = 1; } message B { E e = 1; } enum F { X = 0; }",
        ),
        (
            "a reservation",
            "message M { reserved 8 to 9; reserved \"z\"; string a = 1; oneof k { A x = 10; } } message A {} \
             enum E { reserved 4; Z = 0; }",
        ),
        (
            "another order",
            "enum E { Z = 0; } message M { oneof k { A x = 10; } string a = 1; reserved 9; } message A {}",
        ),
    ];
    for (what, new) in cases {
        assert_eq!(violations_between(old, new), [], "{what}");
    }
}

#[test]
fn removal_is_allowed_when_number_and_name_stay_reserved() {
    let cases = [
        (
            "message M { string a = 1; bool b = 2; }",
            "message M { reserved 1; reserved \"a\"; bool b = 2; }",
        ),
        (
            "message M { string a = 5; }",
            "message M { reserved 1 to 3, 4 to 9; reserved \"a\"; }",
        ),
        (
            "message M { oneof k { bool a = 1; bool b = 2; } }",
            "message M { reserved 1; reserved \"a\"; oneof k { bool b = 2; } }",
        ),
        (
            "enum E { Z = 0; Y = 1; }",
            "enum E { reserved 1; reserved \"Y\"; Z = 0; }",
        ),
        // Reserved ranges may be cut into pieces that hold the same numbers.
        (
            "message M { reserved 1 to 9; }",
            "message M { reserved 4 to max, 1 to 3; }",
        ),
    ];
    for (old, new) in cases {
        assert_eq!(violations_between(old, new), [], "{old} → {new}");
    }
}

#[test]
fn names_and_numbers_stay_together() {
    let cases = [
        (
            "a field is renamed",
            "message M { string a = 1; }",
            "message M { string b = 1; }",
            Violation::Renamed {
                parent: owned("a.v1.M"),
                number: 1,
                from: owned("a"),
                to: owned("b"),
            },
        ),
        (
            "a field of a nested message is renamed",
            "message M { message N { string a = 1; } }",
            "message M { message N { string b = 1; } }",
            Violation::Renamed {
                parent: owned("a.v1.M.N"),
                number: 1,
                from: owned("a"),
                to: owned("b"),
            },
        ),
        (
            "a field is renumbered",
            "message M { string a = 1; }",
            "message M { string a = 2; }",
            Violation::Renumbered {
                parent: owned("a.v1.M"),
                name: owned("a"),
                from: 1,
                to: 2,
            },
        ),
        (
            "a message is renamed",
            "message M {}",
            "message N {}",
            Violation::MessageMissing {
                message: owned("a.v1.M"),
            },
        ),
        (
            "a nested message is removed",
            "message M { message N {} }",
            "message M {}",
            Violation::MessageMissing {
                message: owned("a.v1.M.N"),
            },
        ),
        (
            "an enum is renamed",
            "enum E { Z = 0; }",
            "enum F { Z = 0; }",
            Violation::EnumMissing {
                enumeration: owned("a.v1.E"),
            },
        ),
        (
            "an enum value is renamed",
            "enum E { Z = 0; Y = 1; }",
            "enum E { Z = 0; X = 1; }",
            Violation::Renamed {
                parent: owned("a.v1.E"),
                number: 1,
                from: owned("Y"),
                to: owned("X"),
            },
        ),
        (
            "an enum value is renumbered",
            "enum E { Z = 0; Y = 1; }",
            "enum E { Z = 0; Y = 2; }",
            Violation::Renumbered {
                parent: owned("a.v1.E"),
                name: owned("Y"),
                from: 1,
                to: 2,
            },
        ),
    ];
    for (what, old, new, violation) in cases {
        assert_eq!(violations_between(old, new), [violation], "{what}");
    }
}

#[test]
fn swapped_names_are_reported_for_both_fields() {
    let found = violations_between(
        "message M { bool a = 1; bool b = 2; }",
        "message M { bool b = 1; bool a = 2; }",
    );
    let renumbered = |name: &str, from, to| Violation::Renumbered {
        parent: owned("a.v1.M"),
        name: owned(name),
        from,
        to,
    };
    assert_eq!(found, [renumbered("a", 1, 2), renumbered("b", 2, 1)]);
}

#[test]
fn type_cardinality_and_oneof_of_a_field_must_not_change() {
    let type_changed = |from: &str, to: &str| Violation::TypeChanged {
        message: owned("a.v1.M"),
        field: owned("f"),
        from: owned(from),
        to: owned(to),
    };
    let cardinality_changed = |from, to| Violation::CardinalityChanged {
        message: owned("a.v1.M"),
        field: owned("f"),
        from,
        to,
    };
    let oneof_changed = |from: Option<&str>, to: Option<&str>| Violation::OneofChanged {
        message: owned("a.v1.M"),
        field: owned("f"),
        from: from.map(owned),
        to: to.map(owned),
    };
    let cases = [
        // Both are varints, but the same bytes mean different numbers.
        (
            "int64 f = 1;",
            "sint64 f = 1;",
            type_changed("int64", "sint64"),
        ),
        (
            "int32 f = 1;",
            "int64 f = 1;",
            type_changed("int32", "int64"),
        ),
        (
            "string f = 1;",
            "bytes f = 1;",
            type_changed("string", "bytes"),
        ),
        (
            "A f = 1;",
            "B f = 1;",
            type_changed("message a.v1.A", "message a.v1.B"),
        ),
        (
            "E f = 1;",
            "int32 f = 1;",
            type_changed("enum a.v1.E", "int32"),
        ),
        (
            "string f = 1;",
            "repeated string f = 1;",
            cardinality_changed("singular", "repeated"),
        ),
        (
            "repeated A f = 1;",
            "A f = 1;",
            cardinality_changed("repeated", "singular"),
        ),
        (
            "bool f = 1;",
            "optional bool f = 1;",
            cardinality_changed("singular", "optional"),
        ),
        (
            "optional bool f = 1;",
            "bool f = 1;",
            cardinality_changed("optional", "singular"),
        ),
        (
            "bool f = 1;",
            "oneof k { bool f = 1; }",
            oneof_changed(None, Some("k")),
        ),
        (
            "oneof k { bool f = 1; }",
            "bool f = 1;",
            oneof_changed(Some("k"), None),
        ),
        (
            "oneof k { bool f = 1; }",
            "oneof l { bool f = 1; }",
            oneof_changed(Some("k"), Some("l")),
        ),
    ];
    let types = "message A {} message B {} enum E { Z = 0; }";
    for (old, new, violation) in cases {
        let found = violations_between(
            &format!("message M {{ {old} }} {types}"),
            &format!("message M {{ {new} }} {types}"),
        );
        assert_eq!(found, [violation], "{old} → {new}");
        let same = format!("message M {{ {old} bool added = 2; }} {types}");
        assert_eq!(
            violations_between(&format!("message M {{ {old} }} {types}"), &same),
            [],
            "{old} stays"
        );
    }
}

#[test]
fn removed_members_must_be_reserved_by_number_and_name() {
    let removed = |parent: &str, name: &str| Violation::RemovedWithoutReserving {
        parent: owned(parent),
        name: owned(name),
        number: 1,
    };
    let cases = [
        (
            "message M { bool a = 1; }",
            "message M {}",
            removed("a.v1.M", "a"),
        ),
        (
            "message M { bool a = 1; }",
            "message M { reserved 1; }",
            removed("a.v1.M", "a"),
        ),
        (
            "message M { bool a = 1; }",
            "message M { reserved \"a\"; }",
            removed("a.v1.M", "a"),
        ),
        (
            "message M { oneof k { bool a = 1; bool b = 2; } }",
            "message M { oneof k { bool b = 2; } }",
            removed("a.v1.M", "a"),
        ),
        (
            "enum E { Z = 0; Y = 1; }",
            "enum E { Z = 0; }",
            removed("a.v1.E", "Y"),
        ),
        (
            "enum E { Z = 0; Y = 1; }",
            "enum E { reserved 1; Z = 0; }",
            removed("a.v1.E", "Y"),
        ),
    ];
    for (old, new, violation) in cases {
        assert_eq!(violations_between(old, new), [violation], "{old} → {new}");
    }
}

#[test]
fn reservations_must_stay() {
    let reused = |parent: &str, name: &str, number| Violation::ReservedReused {
        parent: owned(parent),
        name: owned(name),
        number,
    };
    let dropped = |parent: &str, reserved: &str| Violation::ReservationDropped {
        parent: owned(parent),
        reserved: owned(reserved),
    };
    let cases = [
        (
            "message M { reserved 3 to 5; }",
            "message M { bool a = 4; }",
            reused("a.v1.M", "a", 4),
        ),
        (
            "message M { reserved \"a\"; }",
            "message M { bool a = 4; }",
            reused("a.v1.M", "a", 4),
        ),
        (
            "enum E { reserved 4; Z = 0; }",
            "enum E { Z = 0; Y = 4; }",
            reused("a.v1.E", "Y", 4),
        ),
        (
            "message M { reserved 3 to max; }",
            "message M { reserved 4 to max; }",
            dropped("a.v1.M", "3 to 536870911"),
        ),
        (
            "message M { reserved 3; }",
            "message M {}",
            dropped("a.v1.M", "3"),
        ),
        (
            "message M { reserved \"a\"; }",
            "message M {}",
            dropped("a.v1.M", "a"),
        ),
        (
            "enum E { reserved \"Y\"; Z = 0; }",
            "enum E { Z = 0; }",
            dropped("a.v1.E", "Y"),
        ),
    ];
    for (old, new, violation) in cases {
        assert_eq!(violations_between(old, new), [violation], "{old} → {new}");
    }
}

#[test]
fn the_package_must_not_change() {
    let other = "syntax = \"proto3\";\npackage a.v2;\nmessage M {}";
    let new = compile(FILE, &BTreeMap::from([(FILE.to_owned(), other.to_owned())])).unwrap();
    let changed = Violation::PackageChanged {
        file: owned(FILE),
        from: owned("a.v1"),
        to: owned("a.v2"),
    };
    assert_eq!(violations(&file("message M {}"), &new), [changed]);
    assert_eq!(violations(&new, &new), []);
}

#[test]
fn imported_files_are_compared_too() {
    let compile_with = |imported: &str| {
        let texts = BTreeMap::from([
            (
                owned("b.proto"),
                format!("syntax = \"proto3\"; package b; {imported}"),
            ),
            (
                owned(FILE),
                owned(
                    "syntax = \"proto3\"; package a.v1; import \"b.proto\"; message M { b.B b = 1; }",
                ),
            ),
        ]);
        compile(FILE, &texts).unwrap()
    };
    let old = compile_with("message B { bool x = 1; }");
    assert_eq!(
        violations(&old, &compile_with("message B { bool x = 1; bool y = 2; }")),
        []
    );
    let renamed = Violation::Renamed {
        parent: owned("b.B"),
        number: 1,
        from: owned("x"),
        to: owned("y"),
    };
    assert_eq!(
        violations(&old, &compile_with("message B { bool y = 1; }")),
        [renamed]
    );
}

#[test]
fn every_import_must_be_a_reference() {
    let imports = ["a.proto", "b.proto", "google/protobuf/timestamp.proto"];
    let missing = Violation::ImportNotReferenced {
        file: owned(FILE),
        import: owned("b.proto"),
    };
    assert_eq!(
        missing_references(FILE, imports, &["a.proto", "c.proto"]),
        [missing]
    );
    assert_eq!(
        missing_references(FILE, imports, &["b.proto", "a.proto"]),
        []
    );
}

#[test]
fn the_record_must_stay_the_first_message() {
    let first = file("message M {} message N {}");
    assert_eq!(first_message(&first, "a.v1.M"), None);
    let changed = Violation::FirstMessageChanged {
        file: owned(FILE),
        from: owned("a.v1.N"),
        to: owned("a.v1.M"),
    };
    assert_eq!(first_message(&first, "a.v1.N"), Some(changed));
    assert!(first_message(&file("enum E { Z = 0; }"), "a.v1.M").is_some());
}

#[test]
fn all_violations_are_listed_and_readable() {
    let found = violations_between(
        "message M { string a = 1; bool b = 2; } enum E { Z = 0; Y = 1; }",
        "message M { bytes a = 1; oneof k { bool b = 2; } } enum E { Z = 0; }",
    );
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "a.v1.M: a changed its type from string to bytes",
            "a.v1.M: b was moved from no oneof to oneof k",
            "a.v1.E: Y = 1 was removed without reserving its number and its name",
        ]
    );
}

#[test]
fn the_contracts_contain_themselves() {
    for service in Service::ALL {
        for record in Topic::ALL
            .into_iter()
            .filter_map(|topic| schema::record(service, topic))
        {
            let file = record.parent_file();
            assert_eq!(violations(&file, &file), [], "{}", file.name());
            assert_eq!(first_message(&file, record.full_name()), None);
        }
    }
}
