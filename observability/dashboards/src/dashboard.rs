//! A dashboard: rows of panels, laid out from left to right.

use serde_json::{Value, json};

use crate::Panel;
use crate::links::{self, PROMETHEUS, TAG};

/// The schema of Grafana 11 and 12; newer versions read it too.
const SCHEMA_VERSION: u32 = 39;
const COLUMNS: u32 = 24;

/// A template variable of a dashboard; queries filter by it with `label=~"$label"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The label, and the name of the variable.
    pub label: &'static str,
    /// A metric that has every value of the label.
    pub metric: &'static str,
}

/// A titled row of panels.
#[derive(Clone, Debug)]
pub struct Row {
    /// Title.
    pub title: &'static str,
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Name of the file, and suffix of the uid.
    pub name: &'static str,
    /// Title.
    pub title: &'static str,
    /// Purpose, in one sentence.
    pub description: &'static str,
    /// Template variables.
    pub variables: Vec<Variable>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

impl Dashboard {
    /// A dashboard without panels.
    pub fn new(name: &'static str, title: &'static str, description: &'static str) -> Self {
        Self {
            name,
            title,
            description,
            variables: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a template variable with the values of `label` in `metric`.
    pub fn variable(mut self, label: &'static str, metric: &'static str) -> Self {
        self.variables.push(Variable { label, metric });
        self
    }

    /// Adds a row.
    pub fn row(mut self, title: &'static str, panels: impl IntoIterator<Item = Panel>) -> Self {
        let panels = panels.into_iter().collect();
        self.rows.push(Row { title, panels });
        self
    }

    /// All panels, in order.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    /// The JSON model of Grafana.
    pub fn json(&self) -> Value {
        let variables: Vec<_> = self.variables.iter().map(Variable::json).collect();
        json!({
            "uid": format!("ordermesh-{}", self.name),
            "title": format!("ordermesh: {}", self.title),
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": { "from": "now-30m", "to": "now" },
            "timezone": "browser",
            "links": links::of_dashboard(),
            "templating": { "list": variables },
            "annotations": { "list": [] },
            "panels": self.layout(),
        })
    }

    fn layout(&self) -> Vec<Value> {
        let mut panels = Vec::new();
        let mut id = 0;
        let mut next_id = || {
            id += 1;
            id
        };
        let mut y = 0;
        for row in &self.rows {
            panels.push(json!({
                "id": next_id(),
                "type": "row",
                "title": row.title,
                "collapsed": false,
                "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
                "panels": [],
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in &row.panels {
                let (w, h) = panel.kind.size();
                if x + w > COLUMNS {
                    y += height;
                    (x, height) = (0, 0);
                }
                panels.push(panel.json(next_id(), (x, y)));
                x += w;
                height = height.max(h);
            }
            y += height;
        }
        panels
    }
}

impl Variable {
    fn json(&self) -> Value {
        let query = format!("label_values({}, {})", self.metric, self.label);
        json!({
            "type": "query",
            "name": self.label,
            "label": self.label,
            "datasource": { "type": "prometheus", "uid": PROMETHEUS },
            "definition": query,
            "query": { "query": query, "refId": "values" },
            "refresh": 2,
            "sort": 1,
            "multi": true,
            "includeAll": true,
            "allValue": ".*",
            "current": { "text": "All", "value": "$__all" },
        })
    }
}
