//! The records of a test's topics, decoded.

use std::collections::BTreeMap;

use contracts::core::v1::Metadata;
use contracts::{Contract, Record, Service, StateBody, Topic};
use engine::log::Input;

use crate::KafkaFixture;

/// A record of a topic, taken apart.
#[derive(Clone, Debug)]
pub struct Opened<B> {
    /// As it was read.
    pub input: Input,
    /// Its head.
    pub metadata: Metadata,
    /// Its content.
    pub body: B,
}

impl KafkaFixture {
    /// Every event, in the order of the log.
    pub fn events<C: Contract>(&self) -> Vec<Opened<C::Event>> {
        self.open::<C::EventRecord>(C::SERVICE, Topic::Events)
    }

    /// Every command, in the order of the log; those that cannot be decoded are left out.
    pub fn commands<C: Contract>(&self) -> Vec<Opened<C::Command>> {
        self.read(C::SERVICE, Topic::Commands)
            .into_iter()
            .filter_map(|input| {
                let (metadata, body) = self
                    .codec
                    .own::<C::CommandRecord>(C::SERVICE, Topic::Commands, &input)
                    .ok()?;
                Some(Opened {
                    input,
                    metadata,
                    body,
                })
            })
            .collect()
    }

    /// Every outcome, in the order of the log.
    pub fn outcomes<C: Contract>(&self) -> Vec<Opened<C::Outcome>> {
        self.open::<C::OutcomeRecord>(C::SERVICE, Topic::Outcomes)
    }

    /// The latest state of every aggregate in the state topic.
    pub fn states<C: Contract>(&self) -> BTreeMap<String, Opened<C::State>> {
        let mut latest = BTreeMap::new();
        for input in self.read(C::SERVICE, Topic::State) {
            latest.insert((input.partition, input.key.clone()), input);
        }
        latest
            .into_values()
            .filter(|input| input.payload.is_some())
            .filter_map(|input| {
                let (metadata, body) = self
                    .codec
                    .own::<C::StateRecord>(C::SERVICE, Topic::State, &input)
                    .ok()?;
                match body {
                    StateBody::Aggregate(body) => Some((
                        metadata.aggregate_id.clone(),
                        Opened {
                            input,
                            metadata,
                            body,
                        },
                    )),
                    _ => None,
                }
            })
            .collect()
    }

    fn open<R: Record>(&self, service: Service, topic: Topic) -> Vec<Opened<R::Body>> {
        self.read(service, topic)
            .into_iter()
            .map(|input| {
                let (metadata, body) = self
                    .codec
                    .own::<R>(service, topic, &input)
                    .expect("the engine wrote it");
                Opened {
                    input,
                    metadata,
                    body,
                }
            })
            .collect()
    }
}
