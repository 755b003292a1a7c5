//! Stock items.

use contracts::inventory::v1::stock_event::Event;

use super::{ApplyError, Occurrence, Row, add, text};

/// A row of `stock`, in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StockRow {
    /// The product.
    pub sku: String,
    /// In the warehouse.
    pub on_hand: i64,
    /// Of those, promised to orders.
    pub reserved: i64,
    /// Received and taken away by adjustments since the beginning.
    pub received: i64,
    /// Left with shipped orders since the beginning.
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
        occurrence: &Occurrence<'_>,
        event: &Event,
    ) -> Result<Self, ApplyError> {
        let mut row = match row {
            Some(row) => row.clone(),
            None => Self {
                sku: text("sku", occurrence.id)?,
                ..Self::default()
            },
        };
        row.version = occurrence.version;
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
