//! Start-up: every contract is compared with all that is registered, and registered when it is not yet.
//!
//! First everything is inspected, then everything is registered, so that a refusal leaves nothing behind. Both
//! halves only repeat what others may do at the same time: the same schema gets the same id.

use std::time::Duration;

use contracts::{Service, Topic};
use prost_reflect::FileDescriptor;

use crate::client::{Client, Reference, Version};
use crate::compatibility::Violation;
use crate::error::Error;
use crate::reader::Reader;
use crate::relation::{Relation, relation};
use crate::schema::{closure, record, references, render};

/// The subject of a topic's records.
pub(crate) fn subject_of(service: Service, topic: Topic, prefix: &str) -> String {
    format!("{}-value", topic.of(service, prefix))
}

/// A contract file and what is registered of it.
pub(crate) struct Subject {
    pub name: String,
    file: FileDescriptor,
    /// The message that the records hold; `None` when the file is only imported.
    record: Option<String>,
    write: bool,
    /// All registered versions and how they stand to this binary's file.
    pub versions: Vec<(Version, Relation)>,
    /// The version that is this binary's file, to the letter and with the same references.
    pub exact: Option<Version>,
}

/// The files behind the topics, each once; imports stand before the files that need them.
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

/// Inspects and registers; afterwards every subject knows its versions, and every written one its exact version.
pub(crate) async fn register(
    client: &Client,
    prefix: &str,
    deadline: Duration,
    subjects: &mut [Subject],
) -> Result<(), Error> {
    let mut registrar = Registrar {
        client,
        reader: Reader::new(client, deadline),
        prefix,
    };
    for index in 0..subjects.len() {
        let (before, subject) = split(subjects, index);
        let expected = registrar.references(&subject.file, before);
        registrar.inspect(subject, expected.as_deref()).await?;
        subject.refuse_if_broken()?;
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

/// How every subject stands, without a change to any.
pub(crate) async fn standings(
    client: &Client,
    prefix: &str,
    deadline: Duration,
    subjects: &mut [Subject],
) -> Result<Vec<Standing>, Error> {
    let mut registrar = Registrar {
        client,
        reader: Reader::new(client, deadline),
        prefix,
    };
    for index in 0..subjects.len() {
        let (before, subject) = split(subjects, index);
        let expected = registrar.references(&subject.file, before);
        registrar.inspect(subject, expected.as_deref()).await?;
    }
    Ok(subjects.iter().map(Subject::standing).collect())
}

/// A subject and those before it, among them its imports.
fn split(subjects: &mut [Subject], index: usize) -> (&[Subject], &mut Subject) {
    let (before, rest) = subjects.split_at_mut(index);
    (before, &mut rest[0])
}

/// How a contract of this binary stands at the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The subject.
    pub subject: String,
    /// What is registered there.
    pub registered: Registered,
}

/// What is registered of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// This binary's own version, perhaps among others.
    Exact,
    /// Only versions that this binary's contains.
    Older,
    /// A version that contains this binary's and more, and not its own.
    Newer {
        /// Which one.
        version: u32,
    },
    /// A version that this binary's contract breaks.
    Broken {
        /// Which one.
        version: u32,
        /// Everything that the gate found.
        violations: Vec<Violation>,
    },
    /// Nothing.
    Nothing,
}

impl Subject {
    fn standing(&self) -> Standing {
        let registered = if self.exact.is_some() {
            Registered::Exact
        } else {
            self.foreign()
        };
        Standing {
            subject: self.name.clone(),
            registered,
        }
    }

    /// What is registered when this binary's own version is not; the worst of it counts.
    fn foreign(&self) -> Registered {
        let mut registered = if self.versions.is_empty() {
            Registered::Nothing
        } else {
            Registered::Older
        };
        for (version, relation) in &self.versions {
            let version = version.version;
            match relation {
                Relation::Contained => {}
                Relation::Newer => registered = Registered::Newer { version },
                Relation::Diverged(violations) => {
                    return Registered::Broken {
                        version,
                        violations: violations.clone(),
                    };
                }
            }
        }
        registered
    }

    /// A program whose own file is registered is in order, whatever others have done to the subject since.
    fn refuse_if_broken(&self) -> Result<(), Error> {
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
    reader: Reader<'a>,
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
            .patiently(&subject.name, || self.client.versions(&subject.name))
            .await?;
        subject.versions.clear();
        subject.exact = None;
        for number in numbers {
            let version = self.reader.version(&subject.name, number).await?;
            let (text_there, references) = (version.text.clone(), version.references.clone());
            let sources = self
                .reader
                .sources(subject.file.name(), text_there, references)
                .await?;
            let relation = relation(&sources, &subject.file, subject.record.as_deref());
            if version.text == text
                && expected.is_some_and(|expected| same(expected, &version.references))
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
            .patiently(&name, || self.client.set_compatibility(&name))
            .await?;
        if subject.exact.is_some() {
            return Ok(());
        }
        let text = render(&subject.file);
        let registered = self
            .reader
            .patiently(&name, || self.client.register(&name, &text, references))
            .await;
        let version = match registered {
            Ok(version) => version,
            Err(refusal) => {
                // Somebody else may have registered the very same between our look and our call.
                self.inspect(subject, Some(references)).await?;
                subject.refuse_if_broken()?;
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

fn same(ours: &[Reference], theirs: &[Reference]) -> bool {
    let sorted = |references: &[Reference]| {
        let mut references = references.to_vec();
        references.sort();
        references
    };
    sorted(ours) == sorted(theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_registers_imports_first_and_everything_once() {
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
    fn what_is_only_read_is_not_registered() {
        let subjects = plan("", &[], &[(Service::Orders, Topic::Events)]);
        assert_eq!(subjects.len(), 3);
        assert!(subjects.iter().all(|subject| !subject.write));
    }
}
