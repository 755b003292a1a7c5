//! Inventory: the rule book of a stock item, and the API that adjusts stock.

mod api;
mod stock_item;

pub use api::{Api, reasons};
pub use stock_item::StockRules;
