//! Evidence that mutations change.

use audit::rows::Row;
use audit::{ClientObservation, InMemoryEvidence, TopicPartition};
use contracts::core::v1::{Checkpoint, Metadata};
use contracts::orders::v1::order_event::Event as OrderEvent;
use contracts::sandbox::v1::LedgerPayment;
use contracts::{Contract, Orders, Record, StateBody, Topic};
use engine::headers;
use engine::log::Partition;

use crate::system_audit::ServiceRuleBooks;

/// Position of a record in the evidence.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef {
    pub topic_partition: TopicPartition,
    pub index: usize,
}

/// Evidence that mutations change.
pub struct MutableEvidence<'a> {
    pub inner: &'a mut InMemoryEvidence,
    rule_books: &'a ServiceRuleBooks,
}

impl<'a> MutableEvidence<'a> {
    pub fn new(inner: &'a mut InMemoryEvidence, rule_books: &'a ServiceRuleBooks) -> Self {
        Self { inner, rule_books }
    }

    /// Every committed record of a topic that can be decoded.
    fn decoded_records<C: Contract, R: Record>(
        &self,
        topic: Topic,
    ) -> Vec<(RecordRef, Metadata, R::Body)> {
        let mut decoded_records = Vec::new();
        for (topic_partition, records) in &self.inner.records {
            if (topic_partition.service, topic_partition.topic) != (C::SERVICE, topic) {
                continue;
            }
            for (index, record) in records.iter().enumerate() {
                let decoded = self
                    .rule_books
                    .codec
                    .decode::<R>(C::SERVICE, topic, &record.input);
                if let (true, Ok((metadata, body))) = (record.committed, decoded) {
                    let record_ref = RecordRef {
                        topic_partition: *topic_partition,
                        index,
                    };
                    decoded_records.push((record_ref, metadata, body));
                }
            }
        }
        decoded_records
    }

    fn find<C: Contract, R: Record>(
        &self,
        topic: Topic,
        predicate: impl Fn(&Metadata, &R::Body) -> bool,
    ) -> (RecordRef, Metadata, R::Body) {
        let records = self.decoded_records::<C, R>(topic);
        let mut found = records
            .into_iter()
            .filter(|(_, metadata, body)| predicate(metadata, body));
        found.next().expect("the healthy evidence has one")
    }

    fn replace_record<C: Contract, R: Record>(
        &mut self,
        record_ref: RecordRef,
        metadata: Metadata,
        body: R::Body,
    ) {
        let record = R::new_record(metadata, body);
        let codec = &self.rule_books.codec;
        let payload = codec.encode(C::SERVICE, record_ref.topic_partition.topic, &record);
        self.inner.records_mut(record_ref.topic_partition)[record_ref.index]
            .input
            .payload = Some(payload);
    }

    pub fn event<C: Contract>(
        &self,
        predicate: impl Fn(&Metadata, &C::Event) -> bool,
    ) -> RecordRef {
        self.find::<C, C::EventRecord>(Topic::Events, predicate).0
    }

    pub fn metadata<C: Contract>(
        &self,
        predicate: impl Fn(&Metadata, &C::Event) -> bool,
    ) -> Metadata {
        self.find::<C, C::EventRecord>(Topic::Events, predicate).1
    }

    pub fn command<C: Contract>(
        &self,
        predicate: impl Fn(&Metadata, &C::Command) -> bool,
    ) -> RecordRef {
        self.find::<C, C::CommandRecord>(Topic::Commands, predicate)
            .0
    }

    pub fn outcome<C: Contract>(
        &self,
        predicate: impl Fn(&Metadata, &C::Outcome) -> bool,
    ) -> RecordRef {
        self.find::<C, C::OutcomeRecord>(Topic::Outcomes, predicate)
            .0
    }

    /// A state of an aggregate.
    pub fn state<C: Contract>(&self) -> RecordRef {
        let is_aggregate =
            |_: &Metadata, body: &StateBody<C::State>| matches!(body, StateBody::Aggregate(_));
        self.find::<C, C::StateRecord>(Topic::State, is_aggregate).0
    }

    /// Changes the first event for which `change` returns `true`.
    pub fn rewrite_event<C: Contract>(
        &mut self,
        mut change: impl FnMut(&mut Metadata, &mut C::Event) -> bool,
    ) {
        for (record_ref, mut metadata, mut event) in
            self.decoded_records::<C, C::EventRecord>(Topic::Events)
        {
            if change(&mut metadata, &mut event) {
                return self.replace_record::<C, C::EventRecord>(record_ref, metadata, event);
            }
        }
        panic!("the healthy evidence has none");
    }

    pub fn rewrite_command<C: Contract>(
        &mut self,
        record_ref: RecordRef,
        change: impl FnOnce(&mut Metadata, &mut C::Command),
    ) {
        let input = &self.inner.records_mut(record_ref.topic_partition)[record_ref.index]
            .input
            .clone();
        let codec = &self.rule_books.codec;
        let decoded = codec.decode::<C::CommandRecord>(C::SERVICE, Topic::Commands, input);
        let (mut metadata, mut command) = decoded.expect("it was read before");
        change(&mut metadata, &mut command);
        self.replace_record::<C, C::CommandRecord>(record_ref, metadata, command);
    }

    /// Changes the first outcome for which `change` returns `true`.
    pub fn rewrite_outcome<C: Contract>(
        &mut self,
        mut change: impl FnMut(&mut Metadata, &mut C::Outcome) -> bool,
    ) {
        for (record_ref, mut metadata, mut outcome) in
            self.decoded_records::<C, C::OutcomeRecord>(Topic::Outcomes)
        {
            if change(&mut metadata, &mut outcome) {
                return self.replace_record::<C, C::OutcomeRecord>(record_ref, metadata, outcome);
            }
        }
        panic!("the healthy evidence has none");
    }

    pub fn rewrite_state<C: Contract>(
        &mut self,
        change: impl FnOnce(&mut Metadata, &mut StateBody<C::State>),
    ) {
        // The last one in the topic: no later version follows it.
        let records = self.decoded_records::<C, C::StateRecord>(Topic::State);
        let mut states = records
            .into_iter()
            .filter(|(_, _, body)| matches!(body, StateBody::Aggregate(_)));
        let (record_ref, mut metadata, mut body) = states.next_back().expect("there are states");
        change(&mut metadata, &mut body);
        self.replace_record::<C, C::StateRecord>(record_ref, metadata, body);
    }

    /// Changes the last checkpoint of a partition.
    pub fn rewrite_checkpoint<C: Contract>(&mut self, change: impl FnOnce(&mut Checkpoint)) {
        let records = self.decoded_records::<C, C::StateRecord>(Topic::State);
        let mut checkpoints = records
            .into_iter()
            .filter(|(_, _, body)| matches!(body, StateBody::Checkpoint(_)));
        let (record_ref, metadata, body) = checkpoints.next_back().expect("there are checkpoints");
        if let StateBody::Checkpoint(mut checkpoint) = body {
            change(&mut checkpoint);
            self.replace_record::<C, C::StateRecord>(
                record_ref,
                metadata,
                StateBody::Checkpoint(checkpoint),
            );
        }
    }

    pub fn remove(&mut self, record_ref: RecordRef) {
        self.inner
            .records_mut(record_ref.topic_partition)
            .remove(record_ref.index);
    }

    /// Removes every record with the key of the record.
    pub fn remove_key(&mut self, record_ref: RecordRef) {
        let records = self.inner.records_mut(record_ref.topic_partition);
        let key = records[record_ref.index].input.key.clone();
        records.retain(|record| record.input.key != key);
    }

    /// Appends a copy of the record.
    pub fn append_copy(&mut self, record_ref: RecordRef) {
        let record = self.inner.records_mut(record_ref.topic_partition)[record_ref.index].clone();
        self.append(record_ref.topic_partition, record);
    }

    fn append(&mut self, topic_partition: TopicPartition, mut record: audit::LogRecord) {
        let ends = self
            .inner
            .cut
            .ends
            .get_mut(&topic_partition)
            .expect("it is known");
        record.input.offset = ends.high;
        ends.high += 1;
        self.inner.records_mut(topic_partition).push(record);
    }

    /// Swaps two records of one partition.
    pub fn swap(&mut self, first: RecordRef, second: RecordRef) {
        let records = self.inner.records_mut(first.topic_partition);
        let offsets = (
            records[first.index].input.offset,
            records[second.index].input.offset,
        );
        records.swap(first.index, second.index);
        records[first.index].input.offset = offsets.0;
        records[second.index].input.offset = offsets.1;
    }

    /// Two consecutive events of one command.
    pub fn consecutive_events<C: Contract>(&self) -> (RecordRef, RecordRef) {
        let records = self.decoded_records::<C, C::EventRecord>(Topic::Events);
        let pair = records.windows(2).find(|pair| {
            let ([first, second], true) = (pair, pair.len() == 2) else {
                return false;
            };
            first.0.topic_partition == second.0.topic_partition
                && first.0.index + 1 == second.0.index
                && first.1.causation_id == second.1.causation_id
        });
        let pair = pair.expect("the healthy evidence has some");
        (pair[0].0, pair[1].0)
    }

    /// Writes a dead letter for the command.
    pub fn dead_letter(&mut self, record_ref: RecordRef) {
        let mut record =
            self.inner.records_mut(record_ref.topic_partition)[record_ref.index].clone();
        let topic_partition = TopicPartition {
            topic: Topic::Dlq,
            ..record_ref.topic_partition
        };
        let topic = self
            .rule_books
            .cluster
            .topic(topic_partition.service, Topic::Commands);
        for (name, value) in [
            (headers::DEAD_SOURCE_TOPIC, topic),
            (
                headers::DEAD_SOURCE_PARTITION,
                topic_partition.partition.to_string(),
            ),
            (headers::DEAD_SOURCE_OFFSET, record.input.offset.to_string()),
            (headers::DEAD_ERROR_CLASS, "invalid".to_owned()),
        ] {
            record
                .input
                .headers
                .push((name.to_owned(), value.into_bytes()));
        }
        self.append(topic_partition, record);
    }

    /// Makes the record undecodable.
    pub fn corrupt(&mut self, record_ref: RecordRef) {
        let input = &mut self.inner.records_mut(record_ref.topic_partition)[record_ref.index].input;
        input.payload = Some(b"garbage".to_vec());
    }

    /// Replaces the schema id of the record. Returns its offset.
    pub fn set_schema_id(&mut self, record_ref: RecordRef, schema_id: u32) -> i64 {
        let input = &mut self.inner.records_mut(record_ref.topic_partition)[record_ref.index].input;
        let payload = input.payload.as_mut().expect("a command has one");
        payload[1..5].copy_from_slice(&schema_id.to_be_bytes());
        input.offset
    }

    pub fn add_observation(&mut self, observation: ClientObservation) {
        self.inner.journal.get_or_insert_default().push(observation);
    }

    /// An order and its total.
    pub fn created_order(&self) -> (String, i64) {
        let is_created =
            |_: &Metadata, event: &OrderEvent| matches!(event, OrderEvent::OrderCreated(_));
        let (_, metadata, event) =
            self.find::<Orders, <Orders as Contract>::EventRecord>(Topic::Events, is_created);
        match event {
            OrderEvent::OrderCreated(event) => (metadata.aggregate_id, event.total),
            _ => unreachable!("the predicate matches only this event"),
        }
    }

    /// A delivered order.
    pub fn delivered_order(&self) -> String {
        let is_delivered =
            |_: &Metadata, event: &OrderEvent| matches!(event, OrderEvent::OrderDelivered(_));
        self.metadata::<Orders>(is_delivered).aggregate_id
    }

    /// An event of an aborted transaction.
    pub fn aborted_event(&self) -> (Partition, i64) {
        let mut records = self.inner.records.iter().filter(|(topic_partition, _)| {
            (topic_partition.service, topic_partition.topic) == (Orders::SERVICE, Topic::Events)
        });
        let found = records.find_map(|(topic_partition, records)| {
            let aborted = records.iter().find(|record| !record.committed)?;
            Some((topic_partition.partition, aborted.input.offset))
        });
        found.expect("the healthy evidence has an aborted transaction")
    }

    pub fn payment_ledger(&mut self) -> &mut Vec<LedgerPayment> {
        self.inner.payments.as_mut().expect("there is a ledger")
    }

    /// A charge in the ledger.
    pub fn charge_entry(&self) -> LedgerPayment {
        self.payment_entry("charged")
    }

    /// A refund in the ledger.
    pub fn refund_entry(&self) -> LedgerPayment {
        self.payment_entry("refunded")
    }

    fn payment_entry(&self, kind: &str) -> LedgerPayment {
        let mut entries = self.inner.payments.iter().flatten();
        let found = entries.find(|entry| entry.kind == kind);
        found.expect("the ledger has one").clone()
    }

    /// Changes the first row for which `change` returns `true`.
    pub fn rewrite_row(&mut self, mut change: impl FnMut(&mut Row) -> bool) {
        let rows = self.inner.rows.as_mut().expect("there is a read model");
        assert!(rows.iter_mut().any(&mut change), "there is such a row");
    }
}
