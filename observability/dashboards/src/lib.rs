//! The dashboards as code. A panel has a title, the question it answers, a unit and queries; the other settings of
//! Grafana are the same for all panels and are added here.
//!
//! `cargo run -p dashboards` writes `observability/grafana/dashboards/` and the index
//! `observability/grafana/PANELS.md`.

pub mod dashboard;
pub mod files;
pub mod panel;
pub mod query;

mod boards;
mod links;

pub use dashboard::Dashboard;
pub use panel::Panel;
pub use query::Query;

/// All dashboards, in the order of the index.
pub fn all() -> Vec<Dashboard> {
    vec![
        boards::orders::dashboard(),
        boards::engine::dashboard(),
        boards::services::dashboard(),
        boards::read_side::dashboard(),
        boards::effects::dashboard(),
        boards::infrastructure::dashboard(),
    ]
}
