//! What happens to processes, the broker and the partners from outside.

use std::rc::Rc;

use contracts::sandbox::v1::{Behaviour, Faults};
use contracts::{Service, Topic};
use engine::log::Partition;
use engine::log::simulated::{Client, PendingAction};

use crate::world::{NAMES, Slot, World};

impl World {
    /// Something happens from outside.
    pub fn mishap(self: &Rc<Self>) {
        let now_ms = self.clock.unix_ms();
        let alive = self.indices(|slot| slot.process.is_some() && !slot.is_busy);
        let Some(index) = self.dice.pick(&alive).copied() else {
            return;
        };
        let (service, instance) = {
            let slot = &self.slots.borrow()[index];
            (slot.service, slot.instance)
        };
        let restless = [4, 4, 4, 5, 5, 8, 8, 8, 8, 0];
        let kind = if self.plan.is_restless {
            restless[self.dice.below(restless.len())]
        } else {
            self.dice.below(14)
        };
        match kind {
            0 | 1 => {
                self.journal
                    .note(format_args!("{service}.{instance} is killed"));
                let downtime_ms = self.downtime_ms();
                self.slots.borrow_mut()[index].end(Some(now_ms + downtime_ms));
            }
            2 => {
                let until_ms = now_ms + self.dice.between(1_000, 25_000);
                self.journal
                    .note(format_args!("{service}.{instance} is frozen"));
                self.slots.borrow_mut()[index].frozen_until_ms = until_ms;
            }
            3 => {
                self.journal.note(format_args!("the broker is away"));
                self.broker_back_ms
                    .set(now_ms + self.dice.between(200, 14_000));
                self.broker.set_away(true);
            }
            4 => self.join(service),
            5 => {
                let others = self.indices(|slot| {
                    slot.service == service && slot.restart_ms.is_some() && !slot.is_doubled
                });
                if others.len() > 1 {
                    self.journal
                        .note(format_args!("{service}.{instance} leaves for good"));
                    self.slots.borrow_mut()[index].end(None);
                }
            }
            6 => {
                self.journal.note(format_args!(
                    "{service}.{instance} is started a second time"
                ));
                let mut slots = self.slots.borrow_mut();
                slots[index].is_doubled = true;
                let mut twin = Slot::new(service, instance);
                twin.is_doubled = true;
                slots.push(twin);
            }
            7 => {
                self.journal.note(format_args!("the partners are out"));
                let outage = Some(Faults {
                    outage: true,
                    ..Faults::default()
                });
                self.partners.sandbox.behave(Behaviour {
                    provider: outage,
                    carrier: outage,
                    ..self.plan.behaviour
                });
                self.partners_back_ms
                    .set(now_ms + self.dice.between(500, 20_000));
            }
            8..=10 => {
                let topics = [Topic::Events, Topic::State, Topic::Commands];
                let topic = topics[self.dice.below(topics.len())];
                let place = (service, topic, self.some_partition());
                let until_ms = now_ms + self.dice.between(50, 8_000);
                self.journal.note(format_args!(
                    "the leader of {service}.{}/{} is slow",
                    topic.name(),
                    place.2
                ));
                self.slow.borrow_mut().insert(place, until_ms);
            }
            11 | 12 => {
                let client = Client::ALL[self.dice.below(Client::ALL.len())];
                self.journal.note(format_args!(
                    "{service}.{instance} loses the broker with its {client:?}"
                ));
                self.slots.borrow()[index].lose(client);
            }
            _ => {
                let partition = self.some_partition();
                self.broker
                    .perform(&PendingAction::Compact(service, partition));
            }
        }
    }

    fn some_partition(&self) -> Partition {
        let partition = self.dice.below(usize::from(self.plan.partitions));
        Partition::try_from(partition).unwrap_or(0)
    }

    fn join(&self, service: Service) {
        let used: Vec<_> = {
            let slots = self.slots.borrow();
            let ours = slots.iter().filter(|slot| {
                slot.service == service && (slot.process.is_some() || slot.restart_ms.is_some())
            });
            ours.map(|slot| slot.instance).collect()
        };
        if let Some(instance) = NAMES.iter().find(|name| !used.contains(name)) {
            self.journal
                .note(format_args!("{service}.{instance} joins"));
            self.slots.borrow_mut().push(Slot::new(service, instance));
        }
    }
}
