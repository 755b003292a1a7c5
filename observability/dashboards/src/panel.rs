//! One panel: a question, and the queries that answer it.

use serde_json::{Value, json};

use crate::links::{self, PROMETHEUS};
use crate::query::{self, Query};

/// The unit of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A rate per second.
    PerSecond,
    /// Requests per second.
    RequestsPerSecond,
    /// Durations, in seconds.
    Seconds,
    /// Sizes, in bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// A ratio, 0 to 1.
    Ratio,
    /// Processor seconds per second.
    Cores,
    /// Money in the smallest unit of its currency.
    MinorUnits,
    /// A state with a name for each value.
    State,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "cps",
            Self::RequestsPerSecond => "reqps",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
            Self::Ratio => "percentunit",
            Self::Cores => "suffix: cores",
            Self::MinorUnits => "suffix: minor units",
            Self::State => "none",
        }
    }
}

/// The visualisation of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lines over time.
    Lines,
    /// Stacked areas over time.
    Stack,
    /// The latest number.
    Number,
    /// A bar for each of several latest numbers.
    Bars,
    /// The distribution of observations over time.
    Heatmap,
    /// States over time, with the names of the values from 0 on.
    States(&'static [&'static str]),
    /// The labels of the current series.
    Table,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Lines | Self::Stack => "timeseries",
            Self::Number => "stat",
            Self::Bars => "bargauge",
            Self::Heatmap => "heatmap",
            Self::States(_) => "state-timeline",
            Self::Table => "table",
        }
    }

    /// Whether the queries are instant queries.
    pub const fn is_instant(self) -> bool {
        matches!(self, Self::Number | Self::Bars | Self::Table)
    }

    /// Width and height on the grid of 24 columns.
    pub const fn size(self) -> (u32, u32) {
        match self {
            Self::Number => (4, 4),
            _ => (8, 8),
        }
    }
}

/// A panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Title.
    pub title: &'static str,
    /// The question that the panel answers.
    pub question: &'static str,
    /// Unit of all values.
    pub unit: Unit,
    /// Visualisation.
    pub kind: Kind,
    /// At least one.
    pub queries: Vec<Query>,
    warn_at: Option<f64>,
    alarm_at: Option<f64>,
    alarm_below: Option<f64>,
    traces_of: Option<&'static str>,
    exemplars: bool,
}

impl Panel {
    /// Lines over time.
    pub fn lines(title: &'static str, question: &'static str, unit: Unit) -> Self {
        Self::new(title, question, unit, Kind::Lines)
    }

    /// Stacked areas over time: parts of a total.
    pub fn stack(title: &'static str, question: &'static str, unit: Unit) -> Self {
        Self::new(title, question, unit, Kind::Stack)
    }

    /// The latest number, as a small panel.
    pub fn number(title: &'static str, question: &'static str, unit: Unit) -> Self {
        Self::new(title, question, unit, Kind::Number)
    }

    /// Bars of the latest numbers.
    pub fn bars(title: &'static str, question: &'static str, unit: Unit) -> Self {
        Self::new(title, question, unit, Kind::Bars)
    }

    /// The distribution of observations over time; its only query sums buckets by `le`.
    pub fn heatmap(title: &'static str, question: &'static str, unit: Unit) -> Self {
        Self::new(title, question, unit, Kind::Heatmap)
    }

    /// States over time; `names` are the names of the values from 0 on.
    pub fn states(
        title: &'static str,
        question: &'static str,
        names: &'static [&'static str],
    ) -> Self {
        Self::new(title, question, Unit::State, Kind::States(names))
    }

    /// The labels of the current series.
    pub fn table(title: &'static str, question: &'static str, unit: Unit) -> Self {
        Self::new(title, question, unit, Kind::Table)
    }

    fn new(title: &'static str, question: &'static str, unit: Unit, kind: Kind) -> Self {
        Self {
            title,
            question,
            unit,
            kind,
            queries: Vec::new(),
            warn_at: None,
            alarm_at: None,
            alarm_below: None,
            traces_of: None,
            exemplars: false,
        }
    }

    /// Adds a query.
    pub fn query(self, promql: impl Into<String>, legend: &str) -> Self {
        self.add_query(promql.into(), legend, false)
    }

    /// Adds a query of counters that may not exist yet: it returns 0 until they do.
    pub fn query_or_zero(self, promql: impl Into<String>, legend: &str) -> Self {
        self.add_query(promql.into(), legend, true)
    }

    fn add_query(mut self, promql: String, legend: &str, or_zero: bool) -> Self {
        self.queries.push(Query {
            promql,
            legend: legend.into(),
            or_zero,
        });
        self
    }

    /// Adds quantiles of a histogram by labels such as `"service"`, with exemplars, which link to traces.
    pub fn quantiles(
        mut self,
        quantiles: &[f64],
        histogram: &str,
        selector: &str,
        by: &str,
    ) -> Self {
        self.exemplars = true;
        let labels: String = by
            .split(", ")
            .filter(|label| !label.is_empty())
            .map(|label| format!(" {{{{{label}}}}}"))
            .collect();
        for &quantile in quantiles {
            let promql = query::quantile(quantile, histogram, selector, by);
            self = self.query(promql, &format!("p{}{labels}", quantile * 100.0));
        }
        self
    }

    /// Values from `value` on are yellow.
    pub fn warn_at(mut self, value: f64) -> Self {
        self.warn_at = Some(value);
        self
    }

    /// Values from `value` on are red.
    pub fn alarm_at(mut self, value: f64) -> Self {
        self.alarm_at = Some(value);
        self
    }

    /// Values below `value` are red, the others green.
    pub fn alarm_below(mut self, value: f64) -> Self {
        self.alarm_below = Some(value);
        self
    }

    /// Links to the traces of a service, which may be a variable such as `${__field.labels.server}`.
    pub fn traces_of(mut self, service: &'static str) -> Self {
        self.traces_of = Some(service);
        self
    }

    /// The JSON model of Grafana, at a position on the grid.
    pub(crate) fn json(&self, id: u32, (x, y): (u32, u32)) -> Value {
        let (w, h) = self.kind.size();
        let mut panel = json!({
            "id": id,
            "type": self.kind.name(),
            "title": self.title,
            "description": self.question,
            "datasource": datasource(),
            "gridPos": { "x": x, "y": y, "w": w, "h": h },
            "fieldConfig": { "defaults": self.defaults(), "overrides": [] },
            "options": self.options(),
            "targets": self.targets(),
        });
        if self.kind == Kind::Table {
            panel["transformations"] = json!([
                { "id": "organize", "options": { "excludeByName": { "Time": true, "Value": true } } },
            ]);
        }
        panel
    }

    fn targets(&self) -> Vec<Value> {
        let instant = self.kind.is_instant();
        ('A'..='Z')
            .zip(&self.queries)
            .map(|(reference, query)| {
                json!({
                    "refId": reference,
                    "datasource": datasource(),
                    "expr": query.expression(),
                    "legendFormat": query.legend,
                    "instant": instant,
                    "range": !instant,
                    "exemplar": self.exemplars && !instant,
                    "format": match self.kind {
                        Kind::Heatmap => "heatmap",
                        Kind::Table => "table",
                        _ => "time_series",
                    },
                })
            })
            .collect()
    }

    fn defaults(&self) -> Value {
        let steps = self.steps();
        let mut defaults = json!({
            "unit": self.unit.name(),
            "noValue": "nothing yet",
            "thresholds": { "mode": "absolute", "steps": steps },
            "color": {
                "mode": match self.kind {
                    Kind::Number | Kind::Bars | Kind::States(_) => "thresholds",
                    _ => "palette-classic",
                },
            },
            "links": self.data_links(),
        });
        if self.unit == Unit::Ratio {
            defaults["min"] = json!(0);
            defaults["max"] = json!(1);
        }
        match self.kind {
            Kind::Lines | Kind::Stack => {
                let stacked = self.kind == Kind::Stack;
                if self.unit != Unit::Ratio {
                    defaults["min"] = json!(0);
                }
                defaults["custom"] = json!({
                    "drawStyle": "line",
                    "lineWidth": 1,
                    "fillOpacity": if stacked { 30 } else { 5 },
                    "showPoints": "never",
                    "stacking": { "mode": if stacked { "normal" } else { "none" }, "group": "A" },
                    "thresholdsStyle": {
                        "mode": if steps.len() > 1 { "dashed" } else { "off" },
                    },
                });
            }
            Kind::States(names) => {
                let options: serde_json::Map<_, _> = names
                    .iter()
                    .enumerate()
                    .map(|(value, name)| (value.to_string(), json!({ "text": name })))
                    .collect();
                defaults["mappings"] = json!([{ "type": "value", "options": options }]);
            }
            _ => {}
        }
        defaults
    }

    fn steps(&self) -> Vec<Value> {
        if let Some(value) = self.alarm_below {
            return vec![
                json!({ "color": "red", "value": null }),
                json!({ "color": "green", "value": value }),
            ];
        }
        let mut steps = vec![json!({ "color": "green", "value": null })];
        for (color, value) in [("yellow", self.warn_at), ("red", self.alarm_at)] {
            if let Some(value) = value {
                steps.push(json!({ "color": color, "value": value }));
            }
        }
        steps
    }

    fn data_links(&self) -> Vec<Value> {
        let link = |service| {
            json!({
                "title": "Traces of this time",
                "url": links::traces(service),
                "targetBlank": true,
            })
        };
        self.traces_of.into_iter().map(link).collect()
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Lines | Kind::Stack => json!({
                "legend": {
                    "displayMode": "table",
                    "placement": "bottom",
                    "showLegend": true,
                    "calcs": ["lastNotNull", "max"],
                },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Number => json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "colorMode": "value",
                "graphMode": "none",
                "textMode": "auto",
            }),
            Kind::Bars => json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "orientation": "horizontal",
                "displayMode": "basic",
            }),
            Kind::Heatmap => json!({
                "calculate": false,
                "cellGap": 1,
                "color": { "mode": "scheme", "scheme": "Blues", "steps": 32 },
                "exemplars": { "color": "orange" },
                "yAxis": { "unit": self.unit.name() },
                "tooltip": { "mode": "single", "yHistogram": true },
                "legend": { "show": true },
            }),
            Kind::States(_) => json!({
                "mergeValues": true,
                "showValue": "auto",
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
                "tooltip": { "mode": "single" },
            }),
            Kind::Table => json!({ "showHeader": true }),
        }
    }
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": PROMETHEUS })
}
