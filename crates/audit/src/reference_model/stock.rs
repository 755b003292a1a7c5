//! The stock item: its quantities and row.

use std::collections::HashMap;

use contracts::Inventory;
use contracts::inventory::v1::stock_event::Event;

use super::{EventContext, ProcessedCommand, ReferenceModel};
use crate::context::AuditContext;
use crate::dedup_window::hash;
use crate::report::Invariant;
use crate::rows::StockRow;

/// The reference model of a stock item, in pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct StockModel {
    pub(crate) version: u64,
    pub(crate) received: i64,
    pub(crate) deducted: i64,
    pub(crate) reserved: i64,
    /// Reserved pieces by order.
    pub(crate) reservations: HashMap<String, i64>,
    pub(crate) row: Option<StockRow>,
}

impl StockModel {
    /// Saturates: a damaged log may have quantities near the limits of the type.
    const fn available(&self) -> i64 {
        self.received
            .saturating_sub(self.deducted)
            .saturating_sub(self.reserved)
    }

    fn apply(&mut self, event: &Event) -> Result<(), (Invariant, String)> {
        match event {
            Event::StockAdjusted(event) => {
                self.received = self.received.saturating_add(event.delta);
            }
            Event::StockReserved(event) => {
                let pieces = i64::from(event.quantity);
                let before = self.reservations.insert(event.order_id.clone(), pieces);
                self.reserved += pieces - before.unwrap_or(0);
                if before.is_some() {
                    let wrong = format!("reserved twice for order {}", event.order_id);
                    return Err((Invariant::I4, wrong));
                }
            }
            Event::StockReleased(event) => {
                let held = self.reservations.remove(&event.order_id).unwrap_or(0);
                self.reserved -= held;
                self.check_quantity("released", held, event.quantity, &event.order_id)?;
            }
            Event::StockDeducted(event) => {
                let held = self.reservations.remove(&event.order_id).unwrap_or(0);
                self.reserved -= held;
                self.deducted += i64::from(event.quantity);
                self.check_quantity("deducted", held, event.quantity, &event.order_id)?;
            }
            Event::StockRefused(event) => {
                let available = self.available();
                if i64::from(event.quantity) <= available {
                    let wrong = format!(
                        "{} refused although {available} are available",
                        event.quantity
                    );
                    return Err((Invariant::I14, wrong));
                }
            }
        }
        if self.available() < 0 {
            let wrong = format!(
                "{} reserved and {} deducted of {} received",
                self.reserved, self.deducted, self.received
            );
            return Err((Invariant::I4, wrong));
        }
        Ok(())
    }

    fn check_quantity(
        &self,
        what: &str,
        held: i64,
        pieces: u32,
        order_id: &str,
    ) -> Result<(), (Invariant, String)> {
        if held == i64::from(pieces) {
            Ok(())
        } else {
            let wrong = format!("{pieces} {what} for order {order_id}, {held} were reserved");
            Err((Invariant::I4, wrong))
        }
    }
}

/// Pieces of each product in shipped orders, by the events of the orders.
#[derive(Debug, Default)]
pub(crate) struct ShippedPieces(HashMap<String, i64>);

impl ShippedPieces {
    pub(crate) fn add(&mut self, sku: &str, pieces: u32) {
        *self.0.entry(sku.to_owned()).or_default() += i64::from(pieces);
    }

    pub(crate) fn pieces(&self, sku: &str) -> i64 {
        self.0.get(sku).copied().unwrap_or(0)
    }
}

impl ReferenceModel for Inventory {
    fn apply_event(context: &mut AuditContext, at: &EventContext<'_>, event: &Event) {
        let item = context.aggregates.stock_item_mut(at.id);
        context.findings.checked(Invariant::I4);
        if let Err((invariant, wrong)) = item.apply(event) {
            context.findings.violated(invariant, at.example(wrong));
        }
        item.version = at.version;
        if let Event::StockAdjusted(event) = event {
            context.findings.checked(Invariant::I13);
            let adjustment = hash((at.id, &event.adjustment_id));
            if !context.adjustments.insert(at.time_ms, adjustment) {
                let wrong = format!("adjustment {} was applied twice", event.adjustment_id);
                context.findings.violated(Invariant::I13, at.example(wrong));
            }
        }
        if at.is_applied {
            let item = context.aggregates.stock_item_mut(at.id);
            let row = item.row.get_or_insert_with(|| StockRow {
                sku: at.id.to_owned(),
                ..StockRow::default()
            });
            row.version = at.row_version();
            match event {
                Event::StockAdjusted(event) => {
                    row.received = row.received.saturating_add(event.delta);
                    row.on_hand = row.on_hand.saturating_add(event.delta);
                }
                Event::StockReserved(event) => row.reserved += i64::from(event.quantity),
                Event::StockReleased(event) => row.reserved -= i64::from(event.quantity),
                Event::StockDeducted(event) => {
                    let pieces = i64::from(event.quantity);
                    row.reserved -= pieces;
                    row.on_hand -= pieces;
                    row.deducted += pieces;
                }
                Event::StockRefused(_) => {}
            }
        }
    }

    fn check_business_outcome(_: &mut AuditContext, _: &ProcessedCommand<'_, Self>) {}

    fn clear_deadlines(_: &mut Event) {}

    fn is_known(context: &AuditContext, id: &str) -> bool {
        context.aggregates.stock.contains_key(id)
    }
}
