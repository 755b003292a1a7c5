//! Links of panels: other dashboards, traces of the same time, alerts.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Data source of the metrics.
pub const PROMETHEUS: &str = "prometheus";
/// Data source of the traces.
pub const JAEGER: &str = "jaeger";
/// Tag of every dashboard, by which dashboards link to each other.
pub const TAG: &str = "ordermesh";

/// The links at the top of every dashboard.
pub fn of_dashboard() -> Value {
    json!([
        {
            "type": "dashboards",
            "title": "Dashboards",
            "tags": [TAG],
            "asDropdown": true,
            "includeVars": false,
            "keepTime": true,
        },
        {
            "type": "link",
            "title": "Traces",
            "icon": "external link",
            "tooltip": "Traces of the time shown",
            "url": traces("gateway"),
        },
        {
            "type": "link",
            "title": "Alerts",
            "icon": "bell",
            "tooltip": "What fires now",
            "url": "/alerting/list",
        },
    ])
}

/// The URL of Explore with the traces of a service in the shown time range.
pub fn traces(service: &str) -> String {
    let panes = json!({
        "traces": {
            "datasource": JAEGER,
            "queries": [{
                "refId": "A",
                "datasource": { "type": "jaeger", "uid": JAEGER },
                "queryType": "search",
                "service": service,
            }],
            "range": { "from": "${__from}", "to": "${__to}" },
        },
    });
    format!(
        "/explore?schemaVersion=1&panes={}",
        percent_encoded(&panes.to_string())
    )
}

/// Percent-encodes text except variables, which Grafana replaces.
fn percent_encoded(text: &str) -> String {
    let mut url = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if rest.starts_with("${")
            && let Some(end) = rest.find('}')
        {
            url.push_str(&rest[..=end]);
            rest = &rest[end + 1..];
            continue;
        }
        if character.is_ascii_alphanumeric() || "-._~".contains(character) {
            url.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                // Writing to a string does not fail.
                let _ = write!(url, "%{byte:02X}");
            }
        }
        rest = &rest[character.len_utf8()..];
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_a_link_are_not_encoded() {
        assert_eq!(
            percent_encoded("{\"a\": ${__from}}"),
            "%7B%22a%22%3A%20${__from}%7D"
        );
        let url = traces("${__field.labels.server}");
        assert!(url.contains("%22service%22%3A%22${__field.labels.server}%22"));
    }
}
