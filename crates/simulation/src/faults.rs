//! External faults: of processes, the broker and the partners.

use std::rc::Rc;

use contracts::sandbox::v1::{Behaviour, Faults};
use contracts::{Service, Topic};
use engine::log::Partition;
use engine::log::simulated::{ClientKind, PendingAction};

use crate::simulation::{INSTANCES, Simulation, Slot};

impl Simulation {
    /// Injects a random fault.
    pub fn inject_fault(self: &Rc<Self>) {
        let now_ms = self.clock.unix_ms();
        let alive = self.slots_where(|slot| slot.process.is_some() && !slot.is_running);
        let Some(index) = self.rng.pick(&alive).copied() else {
            return;
        };
        let (service, instance) = {
            let slot = &self.slots.borrow()[index];
            (slot.service, slot.instance)
        };
        let churn_kinds = [4, 4, 4, 5, 5, 8, 8, 8, 8, 0];
        let kind = if self.plan.has_churn {
            churn_kinds[self.rng.below(churn_kinds.len())]
        } else {
            self.rng.below(14)
        };
        match kind {
            0 | 1 => {
                self.journal
                    .note(format_args!("{service}.{instance} is killed"));
                let downtime_ms = self.random_downtime_ms();
                self.slots.borrow_mut()[index].stop(Some(now_ms + downtime_ms));
            }
            2 => {
                let until_ms = now_ms + self.rng.between(1_000, 25_000);
                self.journal
                    .note(format_args!("{service}.{instance} is frozen"));
                self.slots.borrow_mut()[index].frozen_until_ms = until_ms;
            }
            3 => {
                self.journal.note(format_args!("the broker is unavailable"));
                self.broker_recovers_ms
                    .set(now_ms + self.rng.between(200, 14_000));
                self.broker.set_unavailable(true);
            }
            4 => self.add_instance(service),
            5 => {
                let others = self.slots_where(|slot| {
                    slot.service == service && slot.restart_ms.is_some() && !slot.is_duplicated
                });
                if others.len() > 1 {
                    self.journal
                        .note(format_args!("{service}.{instance} leaves for good"));
                    self.slots.borrow_mut()[index].stop(None);
                }
            }
            6 => {
                self.journal.note(format_args!(
                    "{service}.{instance} is started a second time"
                ));
                let mut slots = self.slots.borrow_mut();
                slots[index].is_duplicated = true;
                let mut duplicate = Slot::new(service, instance);
                duplicate.is_duplicated = true;
                slots.push(duplicate);
            }
            7 => {
                self.journal
                    .note(format_args!("the partners are unavailable"));
                let outage = Some(Faults {
                    outage: true,
                    ..Faults::default()
                });
                self.partners.sandbox.set_behaviour(Behaviour {
                    provider: outage,
                    carrier: outage,
                    ..self.plan.behaviour
                });
                self.partners_recover_ms
                    .set(now_ms + self.rng.between(500, 20_000));
            }
            8..=10 => {
                let topics = [Topic::Events, Topic::State, Topic::Commands];
                let topic = topics[self.rng.below(topics.len())];
                let tp = (service, topic, self.random_partition());
                let until_ms = now_ms + self.rng.between(50, 8_000);
                self.journal.note(format_args!(
                    "the leader of {service}.{}/{} is slow",
                    topic.name(),
                    tp.2
                ));
                self.slow_leaders.borrow_mut().insert(tp, until_ms);
            }
            11 | 12 => {
                let client = ClientKind::ALL[self.rng.below(ClientKind::ALL.len())];
                self.journal.note(format_args!(
                    "{service}.{instance} loses the connection of its {client:?}"
                ));
                self.slots.borrow()[index].disconnect(client);
            }
            _ => {
                let partition = self.random_partition();
                self.broker
                    .perform(&PendingAction::Compact(service, partition));
            }
        }
    }

    fn random_partition(&self) -> Partition {
        let partition = self.rng.below(usize::from(self.plan.partitions));
        Partition::try_from(partition).unwrap_or(0)
    }

    fn add_instance(&self, service: Service) {
        let used: Vec<_> = {
            let slots = self.slots.borrow();
            let used = slots.iter().filter(|slot| {
                slot.service == service && (slot.process.is_some() || slot.restart_ms.is_some())
            });
            used.map(|slot| slot.instance).collect()
        };
        if let Some(instance) = INSTANCES.iter().find(|name| !used.contains(name)) {
            self.journal
                .note(format_args!("{service}.{instance} joins"));
            self.slots.borrow_mut().push(Slot::new(service, instance));
        }
    }
}
