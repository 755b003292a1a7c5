//! Inventory: the rule book of a stock item, and the API that stock is adjusted with.

mod api;
mod stock_item;

pub use api::{Api, reasons};
pub use stock_item::StockRules;
