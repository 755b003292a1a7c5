//! A copy of a healthy world, and the tools to spoil it.

use audit::rows::Row;
use audit::{ClientObservation, Memory, TopicPartition};
use contracts::core::v1::{Checkpoint, Metadata};
use contracts::orders::v1::order_event::Event as OrderEvent;
use contracts::sandbox::v1::LedgerPayment;
use contracts::{Contract, Orders, Record, StateBody, Topic};
use engine::headers;
use engine::log::Partition;

use crate::audit::Books;

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    pub place: TopicPartition,
    pub index: usize,
}

/// A copy that is about to be spoiled.
pub struct MutatedLog<'a> {
    pub memory: &'a mut Memory,
    books: &'a Books,
}

impl<'a> MutatedLog<'a> {
    pub fn new(memory: &'a mut Memory, books: &'a Books) -> Self {
        Self { memory, books }
    }

    /// Every committed record of a topic that can be read.
    fn all<C: Contract, R: Record>(&self, topic: Topic) -> Vec<(Spot, Metadata, R::Body)> {
        let mut all = Vec::new();
        for (place, records) in &self.memory.records {
            if (place.service, place.topic) != (C::SERVICE, topic) {
                continue;
            }
            for (index, seen) in records.iter().enumerate() {
                let opened = self.books.codec.own::<R>(C::SERVICE, topic, &seen.input);
                if let (true, Ok((metadata, body))) = (seen.committed, opened) {
                    let spot = Spot {
                        place: *place,
                        index,
                    };
                    all.push((spot, metadata, body));
                }
            }
        }
        all
    }

    fn find<C: Contract, R: Record>(
        &self,
        topic: Topic,
        is_it: impl Fn(&Metadata, &R::Body) -> bool,
    ) -> (Spot, Metadata, R::Body) {
        let all = self.all::<C, R>(topic);
        let mut found = all
            .into_iter()
            .filter(|(_, metadata, body)| is_it(metadata, body));
        found.next().expect("the healthy world has one")
    }

    fn write<C: Contract, R: Record>(&mut self, spot: Spot, metadata: Metadata, body: R::Body) {
        let record = R::new_record(metadata, body);
        let codec = &self.books.codec;
        let payload = codec.encode(C::SERVICE, spot.place.topic, &record);
        self.memory.records_mut(spot.place)[spot.index]
            .input
            .payload = Some(payload);
    }

    pub fn event<C: Contract>(&self, is_it: impl Fn(&Metadata, &C::Event) -> bool) -> Spot {
        self.find::<C, C::EventRecord>(Topic::Events, is_it).0
    }

    pub fn metadata<C: Contract>(&self, is_it: impl Fn(&Metadata, &C::Event) -> bool) -> Metadata {
        self.find::<C, C::EventRecord>(Topic::Events, is_it).1
    }

    pub fn command<C: Contract>(&self, is_it: impl Fn(&Metadata, &C::Command) -> bool) -> Spot {
        self.find::<C, C::CommandRecord>(Topic::Commands, is_it).0
    }

    pub fn outcome<C: Contract>(&self, is_it: impl Fn(&Metadata, &C::Outcome) -> bool) -> Spot {
        self.find::<C, C::OutcomeRecord>(Topic::Outcomes, is_it).0
    }

    /// The latest state of some aggregate.
    pub fn state<C: Contract>(&self) -> Spot {
        let is_aggregate =
            |_: &Metadata, body: &StateBody<C::State>| matches!(body, StateBody::Aggregate(_));
        self.find::<C, C::StateRecord>(Topic::State, is_aggregate).0
    }

    /// Changes the first event that `change` takes.
    pub fn rewrite_event<C: Contract>(
        &mut self,
        mut change: impl FnMut(&mut Metadata, &mut C::Event) -> bool,
    ) {
        for (spot, mut metadata, mut event) in self.all::<C, C::EventRecord>(Topic::Events) {
            if change(&mut metadata, &mut event) {
                return self.write::<C, C::EventRecord>(spot, metadata, event);
            }
        }
        panic!("the healthy world has none");
    }

    pub fn rewrite_command<C: Contract>(
        &mut self,
        spot: Spot,
        change: impl FnOnce(&mut Metadata, &mut C::Command),
    ) {
        let input = &self.memory.records_mut(spot.place)[spot.index]
            .input
            .clone();
        let codec = &self.books.codec;
        let opened = codec.own::<C::CommandRecord>(C::SERVICE, Topic::Commands, input);
        let (mut metadata, mut command) = opened.expect("it was read before");
        change(&mut metadata, &mut command);
        self.write::<C, C::CommandRecord>(spot, metadata, command);
    }

    /// Changes the first outcome that `change` takes.
    pub fn rewrite_outcome<C: Contract>(
        &mut self,
        mut change: impl FnMut(&mut Metadata, &mut C::Outcome) -> bool,
    ) {
        for (spot, mut metadata, mut outcome) in self.all::<C, C::OutcomeRecord>(Topic::Outcomes) {
            if change(&mut metadata, &mut outcome) {
                return self.write::<C, C::OutcomeRecord>(spot, metadata, outcome);
            }
        }
        panic!("the healthy world has none");
    }

    pub fn rewrite_state<C: Contract>(
        &mut self,
        change: impl FnOnce(&mut Metadata, &mut StateBody<C::State>),
    ) {
        // The last one in the topic: no later version follows it.
        let all = self.all::<C, C::StateRecord>(Topic::State);
        let mut states = all
            .into_iter()
            .filter(|(_, _, body)| matches!(body, StateBody::Aggregate(_)));
        let (spot, mut metadata, mut body) = states.next_back().expect("there are states");
        change(&mut metadata, &mut body);
        self.write::<C, C::StateRecord>(spot, metadata, body);
    }

    /// Changes the last checkpoint of a partition.
    pub fn rewrite_checkpoint<C: Contract>(&mut self, change: impl FnOnce(&mut Checkpoint)) {
        let all = self.all::<C, C::StateRecord>(Topic::State);
        let mut checkpoints = all
            .into_iter()
            .filter(|(_, _, body)| matches!(body, StateBody::Checkpoint(_)));
        let (spot, metadata, body) = checkpoints.next_back().expect("there are checkpoints");
        if let StateBody::Checkpoint(mut checkpoint) = body {
            change(&mut checkpoint);
            self.write::<C, C::StateRecord>(spot, metadata, StateBody::Checkpoint(checkpoint));
        }
    }

    pub fn remove(&mut self, spot: Spot) {
        self.memory.records_mut(spot.place).remove(spot.index);
    }

    /// Removes every record of the key that stands there.
    pub fn remove_key(&mut self, spot: Spot) {
        let records = self.memory.records_mut(spot.place);
        let key = records[spot.index].input.key.clone();
        records.retain(|seen| seen.input.key != key);
    }

    /// The record once more, behind all others.
    pub fn append_copy(&mut self, spot: Spot) {
        let seen = self.memory.records_mut(spot.place)[spot.index].clone();
        self.append(spot.place, seen);
    }

    fn append(&mut self, place: TopicPartition, mut seen: audit::Seen) {
        let ends = self.memory.cut.ends.get_mut(&place).expect("it is known");
        seen.input.offset = ends.high;
        ends.high += 1;
        self.memory.records_mut(place).push(seen);
    }

    /// Puts each record where the other one stands.
    pub fn swap(&mut self, first: Spot, second: Spot) {
        let records = self.memory.records_mut(first.place);
        let offsets = (
            records[first.index].input.offset,
            records[second.index].input.offset,
        );
        records.swap(first.index, second.index);
        records[first.index].input.offset = offsets.0;
        records[second.index].input.offset = offsets.1;
    }

    /// Two events of one command, one right behind the other.
    pub fn neighbours<C: Contract>(&self) -> (Spot, Spot) {
        let all = self.all::<C, C::EventRecord>(Topic::Events);
        let pair = all.windows(2).find(|pair| {
            let ([first, second], true) = (pair, pair.len() == 2) else {
                return false;
            };
            first.0.place == second.0.place
                && first.0.index + 1 == second.0.index
                && first.1.causation_id == second.1.causation_id
        });
        let pair = pair.expect("the healthy world has some");
        (pair[0].0, pair[1].0)
    }

    /// Writes the command that stands there to the dead letters.
    pub fn dead_letter(&mut self, spot: Spot) {
        let mut seen = self.memory.records_mut(spot.place)[spot.index].clone();
        let place = TopicPartition {
            topic: Topic::Dlq,
            ..spot.place
        };
        let topic = self.books.cluster.topic(place.service, Topic::Commands);
        for (name, value) in [
            (headers::DEAD_SOURCE_TOPIC, topic),
            (headers::DEAD_SOURCE_PARTITION, place.partition.to_string()),
            (headers::DEAD_SOURCE_OFFSET, seen.input.offset.to_string()),
            (headers::DEAD_ERROR_CLASS, "invalid".to_owned()),
        ] {
            seen.input
                .headers
                .push((name.to_owned(), value.into_bytes()));
        }
        self.append(place, seen);
    }

    /// Makes the record that stands there one that nobody can read.
    pub fn garble(&mut self, spot: Spot) {
        let input = &mut self.memory.records_mut(spot.place)[spot.index].input;
        input.payload = Some(b"garbage".to_vec());
    }

    /// Puts the record that stands there under another schema; its offset.
    pub fn reframe(&mut self, spot: Spot, schema_id: u32) -> i64 {
        let input = &mut self.memory.records_mut(spot.place)[spot.index].input;
        let payload = input.payload.as_mut().expect("a command has one");
        payload[1..5].copy_from_slice(&schema_id.to_be_bytes());
        input.offset
    }

    pub fn note(&mut self, note: ClientObservation) {
        self.memory.journal.get_or_insert_default().push(note);
    }

    /// Some order and its total.
    pub fn created(&self) -> (String, i64) {
        let is_created =
            |_: &Metadata, event: &OrderEvent| matches!(event, OrderEvent::OrderCreated(_));
        let (_, metadata, event) =
            self.find::<Orders, <Orders as Contract>::EventRecord>(Topic::Events, is_created);
        match event {
            OrderEvent::OrderCreated(event) => (metadata.aggregate_id, event.total),
            _ => unreachable!("it was looked for"),
        }
    }

    /// Some order that was delivered.
    pub fn delivered(&self) -> String {
        let is_delivered =
            |_: &Metadata, event: &OrderEvent| matches!(event, OrderEvent::OrderDelivered(_));
        self.metadata::<Orders>(is_delivered).aggregate_id
    }

    /// An event of an aborted transaction.
    pub fn aborted(&self) -> (Partition, i64) {
        let mut records =
            self.memory.records.iter().filter(|(place, _)| {
                (place.service, place.topic) == (Orders::SERVICE, Topic::Events)
            });
        let found = records.find_map(|(place, records)| {
            let aborted = records.iter().find(|seen| !seen.committed)?;
            Some((place.partition, aborted.input.offset))
        });
        found.expect("the healthy world has an aborted transaction")
    }

    pub fn ledger(&mut self) -> &mut Vec<LedgerPayment> {
        self.memory.payments.as_mut().expect("there is a ledger")
    }

    /// Some charge of the ledger.
    pub fn charge(&self) -> LedgerPayment {
        self.entry("charged")
    }

    /// Some refund of the ledger.
    pub fn refund(&self) -> LedgerPayment {
        self.entry("refunded")
    }

    fn entry(&self, kind: &str) -> LedgerPayment {
        let mut entries = self.memory.payments.iter().flatten();
        let found = entries.find(|entry| entry.kind == kind);
        found.expect("the ledger has one").clone()
    }

    /// Changes the first row that `change` takes.
    pub fn row(&mut self, mut change: impl FnMut(&mut Row) -> bool) {
        let rows = self.memory.rows.as_mut().expect("there is a read model");
        assert!(rows.iter_mut().any(&mut change), "there is such a row");
    }
}
