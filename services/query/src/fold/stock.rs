//! Stock items.

use contracts::inventory::v1::stock_event::Event;

use super::{ApplyError, EventMetadata, Row, add, text};

/// A row of `stock`. Quantities are pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StockRow {
    /// The product.
    pub sku: String,
    /// In the warehouse.
    pub on_hand: i64,
    /// Of those, reserved for orders.
    pub reserved: i64,
    /// Net sum of all adjustments.
    pub received: i64,
    /// Sum of all deductions for shipped orders.
    pub deducted: i64,
    /// Events folded so far.
    pub version: i64,
}

from_row!(StockRow {
    sku,
    on_hand,
    reserved,
    received,
    deducted,
    version
});

impl Row for StockRow {
    type Event = Event;

    fn key(&self) -> String {
        self.sku.clone()
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn apply(
        row: Option<&Self>,
        metadata: &EventMetadata<'_>,
        event: &Event,
    ) -> Result<Self, ApplyError> {
        let mut row = match row {
            Some(row) => row.clone(),
            None => Self {
                sku: text("sku", metadata.id)?,
                ..Self::default()
            },
        };
        row.version = metadata.version;
        match event {
            Event::StockAdjusted(adjusted) => {
                row.on_hand = add("on_hand", row.on_hand, adjusted.delta)?;
                row.received = add("received", row.received, adjusted.delta)?;
            }
            Event::StockReserved(reserved) => {
                row.reserved = add("reserved", row.reserved, i64::from(reserved.quantity))?;
            }
            Event::StockReleased(released) => {
                row.reserved = add("reserved", row.reserved, -i64::from(released.quantity))?;
            }
            Event::StockDeducted(deducted) => {
                let quantity = i64::from(deducted.quantity);
                row.on_hand = add("on_hand", row.on_hand, -quantity)?;
                row.reserved = add("reserved", row.reserved, -quantity)?;
                row.deducted = add("deducted", row.deducted, quantity)?;
            }
            Event::StockRefused(_) => {}
        }
        if row.on_hand < row.reserved {
            return Err(ApplyError::Range { field: "available" });
        }
        if row.reserved < 0 {
            return Err(ApplyError::Range { field: "reserved" });
        }
        Ok(row)
    }
}
