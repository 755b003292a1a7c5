//! The project's compatibility check: stricter than the check of any registry, and independent of the registry in use.
//!
//! The log is read for ever, so a new schema must read everything that older schemas wrote, with the same meaning. New
//! fields, oneof members, messages and enum values are allowed; whatever changes or removes the meaning of an existing
//! one is a [`Violation`].

use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
};

use crate::schema::{closure, is_reference};

/// An incompatible change from an older schema to a newer one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The file has another package.
    #[error("{file}: package {from} became {to}")]
    PackageChanged {
        /// Import path.
        file: String,
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// An import is not among the registered references.
    #[error("{file}: import {import} is not a registered reference")]
    ImportNotReferenced {
        /// Import path.
        file: String,
        /// What is imported.
        import: String,
    },
    /// The record is no longer the first message of the file (message index `[0]`).
    #[error("{file}: the first message is {to} instead of {from}")]
    FirstMessageChanged {
        /// Import path.
        file: String,
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// The text cannot be parsed.
    #[error("{file}: {reason}")]
    Unreadable {
        /// Import path.
        file: String,
        /// The parser's error.
        reason: String,
    },
    /// A message was removed or renamed.
    #[error("message {message} was renamed or removed")]
    MessageMissing {
        /// Full name.
        message: String,
    },
    /// An enum was removed or renamed.
    #[error("enum {enumeration} was renamed or removed")]
    EnumMissing {
        /// Full name.
        enumeration: String,
    },
    /// A number has another name: the member was renamed, or its number was reused.
    #[error("{parent}: {from} = {number} was renamed to {to}")]
    Renamed {
        /// Full name of the message or enum.
        parent: String,
        /// The number of the field or enum value.
        number: i64,
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// A name has another number.
    #[error("{parent}: {name} = {from} was renumbered to {to}")]
    Renumbered {
        /// Full name of the message or enum.
        parent: String,
        /// The field or enum value.
        name: String,
        /// Before.
        from: i64,
        /// Now.
        to: i64,
    },
    /// A field or enum value was removed without reserving its number and its name.
    #[error("{parent}: {name} = {number} was removed without reserving its number and its name")]
    RemovedWithoutReserving {
        /// Full name of the message or enum.
        parent: String,
        /// The field or enum value.
        name: String,
        /// Its number.
        number: i64,
    },
    /// A reserved number or name is in use.
    #[error("{parent}: {name} = {number} uses what was reserved")]
    ReservedReused {
        /// Full name of the message or enum.
        parent: String,
        /// The field or enum value.
        name: String,
        /// Its number.
        number: i64,
    },
    /// A number or name is no longer reserved, so that a later version could reuse it.
    #[error("{parent}: {reserved} is no longer reserved")]
    ReservationDropped {
        /// Full name of the message or enum.
        parent: String,
        /// The range of numbers or the name.
        reserved: String,
    },
    /// A field has another type.
    #[error("{message}: {field} changed its type from {from} to {to}")]
    TypeChanged {
        /// Full name of the message.
        message: String,
        /// The field.
        field: String,
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// A field changed between singular, optional and repeated.
    #[error("{message}: {field} changed from {from} to {to}")]
    CardinalityChanged {
        /// Full name of the message.
        message: String,
        /// The field.
        field: String,
        /// Before.
        from: &'static str,
        /// Now.
        to: &'static str,
    },
    /// A field was moved into, out of, or between oneofs (a renamed oneof counts).
    #[error("{message}: {field} was moved from {} to {}", oneof_name(.from), oneof_name(.to))]
    OneofChanged {
        /// Full name of the message.
        message: String,
        /// The field.
        field: String,
        /// The oneof before.
        from: Option<String>,
        /// The oneof now.
        to: Option<String>,
    },
}

fn oneof_name(oneof: &Option<String>) -> String {
    oneof
        .as_ref()
        .map_or_else(|| "no oneof".to_owned(), |name| format!("oneof {name}"))
}

/// All incompatible changes from `old` and the files that it imports to `new`. When there is none, `new` contains
/// `old`.
pub fn violations(old: &FileDescriptor, new: &FileDescriptor) -> Vec<Violation> {
    let mut found = Vec::new();
    for old in closure(old) {
        let counterpart = new.parent_pool().get_file_by_name(old.name());
        if let Some(new) = counterpart.filter(|new| new.package_name() != old.package_name()) {
            found.push(Violation::PackageChanged {
                file: old.name().to_owned(),
                from: old.package_name().to_owned(),
                to: new.package_name().to_owned(),
            });
            // Every full name changed with the package: one violation is enough.
            continue;
        }
        old.messages()
            .for_each(|message| compare_message(&message, new, &mut found));
        old.enums()
            .for_each(|enumeration| compare_enum(&enumeration, new, &mut found));
    }
    found
}

/// The imports of `file` that are missing in `references` (import paths); no registry checks that reliably.
pub fn missing_references<'a>(
    file: &'a str,
    imports: impl IntoIterator<Item = &'a str>,
    references: &[&str],
) -> Vec<Violation> {
    imports
        .into_iter()
        .filter(|import| is_reference(import) && !references.contains(import))
        .map(|import| Violation::ImportNotReferenced {
            file: file.to_owned(),
            import: import.to_owned(),
        })
        .collect()
}

/// Checks that `record` is the first message of `file`, as the message index `[0]` requires.
pub fn first_message(file: &FileDescriptor, record: &str) -> Option<Violation> {
    let first = file.messages().next();
    let first = first.as_ref().map_or("none", |message| message.full_name());
    (first != record).then(|| Violation::FirstMessageChanged {
        file: file.name().to_owned(),
        from: record.to_owned(),
        to: first.to_owned(),
    })
}

fn compare_message(old: &MessageDescriptor, new: &FileDescriptor, found: &mut Vec<Violation>) {
    let Some(message) = new.parent_pool().get_message_by_name(old.full_name()) else {
        found.push(Violation::MessageMissing {
            message: old.full_name().to_owned(),
        });
        return;
    };
    compare_members(
        &Members::of_message(old),
        &Members::of_message(&message),
        found,
    );
    for old in old.fields() {
        // A renumbered field is reported already.
        let field = message
            .get_field(old.number())
            .filter(|field| field.name() == old.name());
        if let Some(field) = field {
            compare_field(&old, &field, found);
        }
    }
    old.child_messages()
        .for_each(|message| compare_message(&message, new, found));
    old.child_enums()
        .for_each(|enumeration| compare_enum(&enumeration, new, found));
}

fn compare_enum(old: &EnumDescriptor, new: &FileDescriptor, found: &mut Vec<Violation>) {
    match new.parent_pool().get_enum_by_name(old.full_name()) {
        Some(new) => compare_members(&Members::of_enum(old), &Members::of_enum(&new), found),
        None => found.push(Violation::EnumMissing {
            enumeration: old.full_name().to_owned(),
        }),
    }
}

fn compare_field(old: &FieldDescriptor, new: &FieldDescriptor, found: &mut Vec<Violation>) {
    let message = || old.parent_message().full_name().to_owned();
    let field = || old.name().to_owned();
    let (from, to) = (type_name(old), type_name(new));
    if from != to {
        found.push(Violation::TypeChanged {
            message: message(),
            field: field(),
            from,
            to,
        });
    }
    let (from, to) = (cardinality(old), cardinality(new));
    if from != to {
        found.push(Violation::CardinalityChanged {
            message: message(),
            field: field(),
            from,
            to,
        });
    }
    let (from, to) = (oneof(old), oneof(new));
    if from != to {
        found.push(Violation::OneofChanged {
            message: message(),
            field: field(),
            from,
            to,
        });
    }
}

fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) => format!("message {}", message.full_name()),
        Kind::Enum(enumeration) => format!("enum {}", enumeration.full_name()),
        scalar => format!("{scalar:?}"),
    }
}

fn cardinality(field: &FieldDescriptor) -> &'static str {
    match field.cardinality() {
        Cardinality::Repeated => "repeated",
        Cardinality::Required => "required",
        Cardinality::Optional if field.field_descriptor_proto().proto3_optional() => "optional",
        Cardinality::Optional => "singular",
    }
}

/// The oneof of a field, without the synthetic oneof of an `optional` field.
fn oneof(field: &FieldDescriptor) -> Option<String> {
    let oneof = field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic())?;
    Some(oneof.name().to_owned())
}

/// The common part of messages and enums: numbered names, reserved numbers and names.
struct Members {
    parent: String,
    numbers: Vec<(i64, String)>,
    /// Both ends inclusive.
    reserved_ranges: Vec<(i64, i64)>,
    reserved_names: Vec<String>,
}

impl Members {
    fn of_message(message: &MessageDescriptor) -> Self {
        Self {
            parent: message.full_name().to_owned(),
            numbers: message
                .fields()
                .map(|field| (field.number().into(), field.name().to_owned()))
                .collect(),
            reserved_ranges: message
                .reserved_ranges()
                .map(|range| (range.start.into(), i64::from(range.end) - 1))
                .collect(),
            reserved_names: message.reserved_names().map(str::to_owned).collect(),
        }
    }

    fn of_enum(enumeration: &EnumDescriptor) -> Self {
        Self {
            parent: enumeration.full_name().to_owned(),
            numbers: enumeration
                .values()
                .map(|value| (value.number().into(), value.name().to_owned()))
                .collect(),
            reserved_ranges: enumeration
                .reserved_ranges()
                .map(|range| (i64::from(*range.start()), i64::from(*range.end())))
                .collect(),
            reserved_names: enumeration.reserved_names().map(str::to_owned).collect(),
        }
    }

    fn number_of(&self, name: &str) -> Option<i64> {
        self.numbers
            .iter()
            .find(|(_, member)| member == name)
            .map(|(number, _)| *number)
    }

    fn name_of(&self, number: i64) -> Option<&str> {
        self.numbers
            .iter()
            .find(|(member, _)| *member == number)
            .map(|(_, name)| name.as_str())
    }

    fn reserves_number(&self, number: i64) -> bool {
        self.reserved_ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&number))
    }

    fn reserves_name(&self, name: &str) -> bool {
        self.reserved_names.iter().any(|reserved| reserved == name)
    }

    /// Whether the reserved ranges together cover every number from `first` to `last`.
    fn reserves_range(&self, (first, last): (i64, i64)) -> bool {
        let mut next = first;
        while next <= last {
            let range = self
                .reserved_ranges
                .iter()
                .find(|(first, last)| (*first..=*last).contains(&next));
            let Some((_, end)) = range else { return false };
            next = end + 1;
        }
        true
    }
}

fn compare_members(old: &Members, new: &Members, found: &mut Vec<Violation>) {
    let parent = || old.parent.clone();
    for (number, name) in &old.numbers {
        let (number, name) = (*number, name.clone());
        match (new.number_of(&name), new.name_of(number)) {
            (Some(to), _) if to != number => {
                found.push(Violation::Renumbered {
                    parent: parent(),
                    name,
                    from: number,
                    to,
                });
            }
            (Some(_), _) => {}
            (None, Some(to)) => {
                found.push(Violation::Renamed {
                    parent: parent(),
                    number,
                    from: name,
                    to: to.to_owned(),
                });
            }
            (None, None) if new.reserves_number(number) && new.reserves_name(&name) => {}
            (None, None) => {
                found.push(Violation::RemovedWithoutReserving {
                    parent: parent(),
                    name,
                    number,
                });
            }
        }
    }
    for (number, name) in &new.numbers {
        if old.reserves_number(*number) || old.reserves_name(name) {
            found.push(Violation::ReservedReused {
                parent: parent(),
                name: name.clone(),
                number: *number,
            });
        }
    }
    for (first, last) in &old.reserved_ranges {
        let reused = new
            .numbers
            .iter()
            .any(|(number, _)| (*first..=*last).contains(number));
        if !reused && !new.reserves_range((*first, *last)) {
            let reserved = if first == last {
                first.to_string()
            } else {
                format!("{first} to {last}")
            };
            found.push(Violation::ReservationDropped {
                parent: parent(),
                reserved,
            });
        }
    }
    for name in &old.reserved_names {
        if new.number_of(name).is_none() && !new.reserves_name(name) {
            found.push(Violation::ReservationDropped {
                parent: parent(),
                reserved: name.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
