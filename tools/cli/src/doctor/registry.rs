//! Whether the registry answers, and knows our contracts.

use std::time::Duration;

use chassis::config;
use registry::{Error, Registered, Schemas, Settings, Standing};

use super::{Finding, chain};
use terminal::count;

pub const PART: &str = "registry";

const REGISTER: &str = "register them with: ordermesh topics apply";

pub async fn examine(registry: &config::Registry, prefix: &str) -> Finding {
    let mut settings = Settings::new(registry.url.clone(), prefix);
    // A registry that is not there is the finding.
    settings.deadline = Duration::ZERO;
    let asked = async {
        let metrics = registry::Metrics::new(&prometheus::Registry::new())?;
        anyhow::Ok(Schemas::standings(&settings, metrics, &platform_client::all_topics()).await)
    };
    match asked.await {
        Ok(Ok(standings)) => judge(&registry.url, &standings),
        Ok(Err(error)) => amiss(&registry.url, &error),
        Err(error) => Finding::failed(PART, format!("{error:#}"), String::new()),
    }
}

/// The worst of what there is.
fn judge(url: &str, standings: &[Standing]) -> Finding {
    let of = |wanted: fn(&Registered) -> bool| {
        standings
            .iter()
            .filter(|standing| wanted(&standing.registered))
            .count()
    };
    let all = count(standings.len());
    let broken = standings
        .iter()
        .find_map(|standing| match &standing.registered {
            Registered::Broken {
                version,
                violations,
            } => Some((&standing.subject, version, violations)),
            _ => None,
        });
    if let Some((subject, version, violations)) = broken {
        let first = violations
            .first()
            .map_or_else(String::new, |violation| format!(": {violation}"));
        return Finding::failed(
            PART,
            format!("{url}: {subject} does not fit its registered version {version}{first}"),
            "this program and whoever registered that version do not belong together",
        );
    }
    let newer = of(|registered| matches!(registered, Registered::Newer { .. }));
    if newer > 0 {
        return Finding::failed(
            PART,
            format!(
                "{url}: {} of {all} contracts are registered newer than this program",
                count(newer)
            ),
            "upgrade it",
        );
    }
    let missing = of(|registered| matches!(registered, Registered::Nothing | Registered::Older));
    if missing > 0 {
        let missing = count(missing);
        return Finding::failed(
            PART,
            format!("{url}: {missing} of {all} contracts are not registered"),
            REGISTER,
        );
    }
    Finding::ok(PART, format!("{url}: {all} contracts registered"))
}

fn amiss(url: &str, error: &Error) -> Finding {
    match error {
        Error::Unavailable { source, .. } | Error::Unreachable { source } => Finding::failed(
            PART,
            format!("{url} does not answer: {}", chain(source.as_ref())),
            "start it (make up), or name another with --registry",
        ),
        error => Finding::failed(
            PART,
            format!("{url}: {}", chain(error)),
            "look at the registry, or name another with --registry",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    fn standing(registered: Registered) -> Standing {
        Standing {
            subject: "orders.events-value".into(),
            registered,
        }
    }

    #[test]
    fn the_worst_contract_counts() {
        let exact = || standing(Registered::Exact);
        let newer = || standing(Registered::Newer { version: 3 });
        assert_eq!(judge("u", &[exact(), exact()]).health, Health::Ok);
        for nothing in [Registered::Nothing, Registered::Older] {
            let finding = judge("u", &[exact(), standing(nothing)]);
            assert_eq!(finding.detail, "u: 1 of 2 contracts are not registered");
            assert_eq!(finding.advice, REGISTER);
        }
        let finding = judge("u", &[standing(Registered::Nothing), newer()]);
        assert_eq!(finding.advice, "upgrade it");
        let broken = standing(Registered::Broken {
            version: 2,
            violations: Vec::new(),
        });
        let finding = judge("u", &[newer(), broken]);
        assert!(
            finding.detail.contains("orders.events-value") && finding.detail.contains("version 2"),
            "{finding:?}"
        );
    }
}
