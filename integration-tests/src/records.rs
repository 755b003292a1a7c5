//! Decoded records of a test's topics.

use std::collections::BTreeMap;

use contracts::core::v1::Metadata;
use contracts::{Contract, Record, Service, StateBody, Topic};
use engine::log::Input;

use crate::KafkaFixture;

/// A decoded record.
#[derive(Clone, Debug)]
pub struct DecodedRecord<B> {
    /// The raw record.
    pub input: Input,
    /// Its metadata.
    pub metadata: Metadata,
    /// Its body.
    pub body: B,
}

impl KafkaFixture {
    /// All events, in log order.
    pub fn events<C: Contract>(&self) -> Vec<DecodedRecord<C::Event>> {
        self.decode_all::<C::EventRecord>(C::SERVICE, Topic::Events)
    }

    /// All commands, in log order, except those that cannot be decoded.
    pub fn commands<C: Contract>(&self) -> Vec<DecodedRecord<C::Command>> {
        self.read(C::SERVICE, Topic::Commands)
            .into_iter()
            .filter_map(|input| {
                let (metadata, body) = self
                    .codec
                    .decode::<C::CommandRecord>(C::SERVICE, Topic::Commands, &input)
                    .ok()?;
                Some(DecodedRecord {
                    input,
                    metadata,
                    body,
                })
            })
            .collect()
    }

    /// All outcomes, in log order.
    pub fn outcomes<C: Contract>(&self) -> Vec<DecodedRecord<C::Outcome>> {
        self.decode_all::<C::OutcomeRecord>(C::SERVICE, Topic::Outcomes)
    }

    /// The latest state of every aggregate in the state topic.
    pub fn states<C: Contract>(&self) -> BTreeMap<String, DecodedRecord<C::State>> {
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
                    .decode::<C::StateRecord>(C::SERVICE, Topic::State, &input)
                    .ok()?;
                match body {
                    StateBody::Aggregate(body) => Some((
                        metadata.aggregate_id.clone(),
                        DecodedRecord {
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

    fn decode_all<R: Record>(&self, service: Service, topic: Topic) -> Vec<DecodedRecord<R::Body>> {
        self.read(service, topic)
            .into_iter()
            .map(|input| {
                let (metadata, body) = self
                    .codec
                    .decode::<R>(service, topic, &input)
                    .expect("the engine wrote it");
                DecodedRecord {
                    input,
                    metadata,
                    body,
                }
            })
            .collect()
    }
}
