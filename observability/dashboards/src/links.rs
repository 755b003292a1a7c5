//! Where panels lead to: other dashboards, the traces of the same time, the alerts.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Data source of everything that is counted.
pub const PROMETHEUS: &str = "prometheus";
/// Data source of the traces.
pub const JAEGER: &str = "jaeger";
/// On every dashboard, so that each links to all.
pub const TAG: &str = "ordermesh";

/// The links at the head of every dashboard.
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

/// Explore with the traces of a service that are as old as what is shown.
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
        encoded(&panes.to_string())
    )
}

/// Percent-encoded, apart from variables, which Grafana replaces.
fn encoded(text: &str) -> String {
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
    fn variables_stay_readable_in_a_link() {
        assert_eq!(
            encoded("{\"a\": ${__from}}"),
            "%7B%22a%22%3A%20${__from}%7D"
        );
        let url = traces("${__field.labels.server}");
        assert!(url.contains("%22service%22%3A%22${__field.labels.server}%22"));
    }
}
