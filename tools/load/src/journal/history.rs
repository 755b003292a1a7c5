//! The state of every basket, folded from the facts of a journal.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::Fact;

/// The state of one basket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasketState {
    /// The id under which the basket was or will be sent.
    pub order_id: Option<Uuid>,
    /// Reasons of refused lines, by line number of the file.
    pub refused_lines: BTreeMap<u64, String>,
    /// `None` while the API has not answered.
    pub result: Option<BasketResult>,
}

/// The final answer to a basket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BasketResult {
    /// The basket became an order.
    Acknowledged {
        /// Lines of the order.
        lines: usize,
        /// Total of the order, in minor units.
        cents: i64,
    },
    /// No line of the basket was accepted.
    Refused {
        /// The reason.
        reason: String,
    },
}

/// The states of all baskets, by basket id.
#[derive(Clone, Debug, Default)]
pub struct History {
    baskets: HashMap<String, BasketState>,
}

impl History {
    /// The state of a basket; the default state when the journal has no fact of it.
    pub fn basket(&self, basket: &str) -> BasketState {
        self.baskets.get(basket).cloned().unwrap_or_default()
    }

    pub(super) fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::File { .. } | Fact::Read { .. } => {}
            Fact::Chosen { basket, order_id } => {
                self.baskets.entry(basket).or_default().order_id = Some(order_id);
            }
            Fact::LineRefused {
                basket,
                line,
                reason,
                ..
            } => {
                self.baskets
                    .entry(basket)
                    .or_default()
                    .refused_lines
                    .insert(line, reason);
            }
            Fact::Acknowledged {
                basket,
                order_id,
                lines,
                cents,
                ..
            } => {
                let state = self.baskets.entry(basket).or_default();
                state.order_id = Some(order_id);
                state.result = Some(BasketResult::Acknowledged { lines, cents });
            }
            Fact::Refused { basket, reason } => {
                self.baskets.entry(basket).or_default().result =
                    Some(BasketResult::Refused { reason });
            }
        }
    }
}
