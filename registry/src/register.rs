//! Registration at start-up: every contract is compared with its registered versions, and registered if it is new.
//!
//! All subjects are inspected before any is registered, so that a refusal leaves nothing behind. Concurrent
//! registrations by several processes are safe: equal schemas get the same id.

use std::time::Duration;

use contracts::{Service, Topic};
use prost_reflect::FileDescriptor;

use crate::client::{Client, Reference, Version};
use crate::compatibility::Violation;
use crate::error::Error;
use crate::reader::RetryingReader;
use crate::relation::{Relation, relation};
use crate::schema::{closure, record, references, render};

/// The subject of a topic's records.
pub(crate) fn subject_of(service: Service, topic: Topic, prefix: &str) -> String {
    format!("{}-value", topic.of(service, prefix))
}

/// A contract file and its registered versions.
pub(crate) struct Subject {
    pub name: String,
    file: FileDescriptor,
    /// The message that the records hold; `None` when the file is only imported.
    record: Option<String>,
    write: bool,
    /// All registered versions and their relation to the file of this binary.
    pub versions: Vec<(Version, Relation)>,
    /// The version with the same text and the same references as the file of this binary.
    pub exact: Option<Version>,
}

/// The files of the topics, each once; imports precede the files that need them.
pub(crate) fn plan(
    prefix: &str,
    writes: &[(Service, Topic)],
    reads: &[(Service, Topic)],
) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = Vec::new();
    let topics = writes
        .iter()
        .map(|topic| (topic, true))
        .chain(reads.iter().map(|topic| (topic, false)));
    for (&(service, topic), write) in topics {
        let Some(message) = record(service, topic) else {
            continue;
        };
        let own_file = message.parent_file();
        for file in closure(&own_file) {
            let is_record = file.name() == own_file.name();
            let name = if is_record {
                subject_of(service, topic, prefix)
            } else {
                reference_subject(&file, prefix)
            };
            if subjects.iter().any(|subject| subject.name == name) {
                continue;
            }
            let record = is_record.then(|| message.full_name().to_owned());
            subjects.push(Subject {
                name,
                file,
                record,
                write,
                versions: Vec::new(),
                exact: None,
            });
        }
    }
    subjects
}

fn reference_subject(file: &FileDescriptor, prefix: &str) -> String {
    format!("{prefix}{}", file.name())
}

/// Inspects and registers the subjects. Afterwards each has its versions, and each written one its exact version.
pub(crate) async fn register(
    client: &Client,
    prefix: &str,
    deadline: Duration,
    subjects: &mut [Subject],
) -> Result<(), Error> {
    let mut registrar = Registrar {
        client,
        reader: RetryingReader::new(client, deadline),
        prefix,
    };
    for index in 0..subjects.len() {
        let (before, subject) = split(subjects, index);
        let expected = registrar.references(&subject.file, before);
        registrar.inspect(subject, expected.as_deref()).await?;
        subject.check_compatible()?;
    }
    for index in 0..subjects.len() {
        let (before, subject) = split(subjects, index);
        if subject.write {
            let references = registrar.references(&subject.file, before);
            let references =
                references.expect("imports are registered before the files that need them");
            registrar.publish(subject, &references).await?;
        }
    }
    Ok(())
}

/// The registration of every subject; changes nothing.
pub(crate) async fn subject_statuses(
    client: &Client,
    prefix: &str,
    deadline: Duration,
    subjects: &mut [Subject],
) -> Result<Vec<SubjectStatus>, Error> {
    let mut registrar = Registrar {
        client,
        reader: RetryingReader::new(client, deadline),
        prefix,
    };
    for index in 0..subjects.len() {
        let (before, subject) = split(subjects, index);
        let expected = registrar.references(&subject.file, before);
        registrar.inspect(subject, expected.as_deref()).await?;
    }
    Ok(subjects.iter().map(Subject::status).collect())
}

/// A subject and those before it, which include its imports.
fn split(subjects: &mut [Subject], index: usize) -> (&[Subject], &mut Subject) {
    let (before, rest) = subjects.split_at_mut(index);
    (before, &mut rest[0])
}

/// The registration of a contract of this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectStatus {
    /// The subject.
    pub subject: String,
    /// What is registered under the subject.
    pub registration: Registration,
}

/// The registered versions of a contract, compared with this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The version of this binary is registered, possibly among others.
    Exact,
    /// Only versions that the version of this binary contains.
    Older,
    /// A version that contains the version of this binary and more; that of this binary is not registered.
    Newer {
        /// The registered version.
        version: u32,
    },
    /// A version that is incompatible with the contract of this binary.
    Incompatible {
        /// The registered version.
        version: u32,
        /// All incompatible changes.
        violations: Vec<Violation>,
    },
    /// No version.
    Missing,
}

impl Subject {
    fn status(&self) -> SubjectStatus {
        let registration = if self.exact.is_some() {
            Registration::Exact
        } else {
            self.inexact_registration()
        };
        SubjectStatus {
            subject: self.name.clone(),
            registration,
        }
    }

    /// The registration when the version of this binary is not registered; the worst version counts.
    fn inexact_registration(&self) -> Registration {
        let mut registration = if self.versions.is_empty() {
            Registration::Missing
        } else {
            Registration::Older
        };
        for (version, relation) in &self.versions {
            let version = version.version;
            match relation {
                Relation::Contained => {}
                Relation::Newer => registration = Registration::Newer { version },
                Relation::Diverged(violations) => {
                    return Registration::Incompatible {
                        version,
                        violations: violations.clone(),
                    };
                }
            }
        }
        registration
    }

    /// Fails when the registered versions do not allow this binary to start. A binary whose own version is registered
    /// may start, whatever was registered later.
    fn check_compatible(&self) -> Result<(), Error> {
        for (version, relation) in &self.versions {
            let version = version.version;
            match relation {
                Relation::Contained => {}
                Relation::Newer if self.exact.is_some() || !self.write => {
                    tracing::info!(
                        subject = self.name,
                        version,
                        "a newer version of a contract is registered"
                    );
                }
                Relation::Diverged(violations) if self.exact.is_some() => {
                    tracing::warn!(
                        subject = self.name,
                        version,
                        ?violations,
                        "a registered version breaks a contract"
                    );
                }
                Relation::Newer => {
                    return Err(Error::Outdated {
                        subject: self.name.clone(),
                        version,
                    });
                }
                Relation::Diverged(violations) => {
                    return Err(Error::Incompatible {
                        subject: self.name.clone(),
                        version,
                        violations: violations.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

struct Registrar<'a> {
    client: &'a Client,
    reader: RetryingReader<'a>,
    prefix: &'a str,
}

impl Registrar<'_> {
    /// The references of `file`; `None` while one of them is not registered.
    fn references(&self, file: &FileDescriptor, registered: &[Subject]) -> Option<Vec<Reference>> {
        references(file)
            .map(|import| {
                let subject = reference_subject(&import, self.prefix);
                let found = registered
                    .iter()
                    .find(|registered| registered.name == subject)?;
                let version = found.exact.as_ref()?.version;
                Some(Reference {
                    name: import.name().to_owned(),
                    subject,
                    version,
                })
            })
            .collect()
    }

    /// Reads all versions of a subject and compares them with its file.
    async fn inspect(
        &mut self,
        subject: &mut Subject,
        expected: Option<&[Reference]>,
    ) -> Result<(), Error> {
        let text = render(&subject.file);
        let numbers = self
            .reader
            .with_retries(&subject.name, || self.client.versions(&subject.name))
            .await?;
        subject.versions.clear();
        subject.exact = None;
        for number in numbers {
            let version = self.reader.version(&subject.name, number).await?;
            let (registered_text, references) = (version.text.clone(), version.references.clone());
            let sources = self
                .reader
                .sources(subject.file.name(), registered_text, references)
                .await?;
            let relation = relation(&sources, &subject.file, subject.record.as_deref());
            if version.text == text
                && expected.is_some_and(|expected| same_references(expected, &version.references))
            {
                subject.exact = Some(version.clone());
            }
            subject.versions.push((version, relation));
        }
        Ok(())
    }

    /// Registers the subject's file unless it is registered already.
    async fn publish(
        &mut self,
        subject: &mut Subject,
        references: &[Reference],
    ) -> Result<(), Error> {
        let name = subject.name.clone();
        self.reader
            .with_retries(&name, || self.client.set_compatibility(&name))
            .await?;
        if subject.exact.is_some() {
            return Ok(());
        }
        let text = render(&subject.file);
        let registered = self
            .reader
            .with_retries(&name, || self.client.register(&name, &text, references))
            .await;
        let version = match registered {
            Ok(version) => version,
            Err(refusal) => {
                // Another process may have registered the same schema between the inspection and this call.
                self.inspect(subject, Some(references)).await?;
                subject.check_compatible()?;
                return subject.exact.as_ref().map(|_| ()).ok_or(refusal);
            }
        };
        tracing::info!(
            subject = name,
            version = version.version,
            id = version.id,
            "registered a contract"
        );
        subject
            .versions
            .push((version.clone(), Relation::Contained));
        subject.exact = Some(version);
        Ok(())
    }
}

fn same_references(left: &[Reference], right: &[Reference]) -> bool {
    let sorted = |references: &[Reference]| {
        let mut references = references.to_vec();
        references.sort();
        references
    };
    sorted(left) == sorted(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_imports_first_and_no_duplicates() {
        let topics = [
            (Service::Orders, Topic::Events),
            (Service::Orders, Topic::Commands),
        ];
        let subjects = plan(
            "t.",
            &topics,
            &[
                (Service::Orders, Topic::Events),
                (Service::Orders, Topic::Dlq),
            ],
        );
        let names: Vec<_> = subjects
            .iter()
            .map(|subject| subject.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "t.ordermesh/core/v1/metadata.proto",
                "t.ordermesh/orders/v1/model.proto",
                "t.orders.events-value",
                "t.orders.commands-value",
            ]
        );
        assert!(subjects.iter().all(|subject| subject.write));
    }

    #[test]
    fn topics_that_are_only_read_are_not_registered() {
        let subjects = plan("", &[], &[(Service::Orders, Topic::Events)]);
        assert_eq!(subjects.len(), 3);
        assert!(subjects.iter().all(|subject| !subject.write));
    }
}
