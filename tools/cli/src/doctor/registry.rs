//! Checks that the registry answers and has the schemas of this program.

use std::time::Duration;

use chassis::config;
use registry::{Error, Registration, Schemas, Settings, SubjectStatus};
use terminal::count;

use super::{CheckResult, error_chain};

pub const PART: &str = "registry";

const REGISTER_HINT: &str = "register them with: ordermesh topics apply";

pub async fn check(registry: &config::Registry, prefix: &str) -> CheckResult {
    let mut settings = Settings::new(registry.url.clone(), prefix);
    // No retries: a registry that does not answer is the result.
    settings.deadline = Duration::ZERO;
    let query = async {
        let metrics = registry::Metrics::new(&prometheus::Registry::new())?;
        anyhow::Ok(
            Schemas::subject_statuses(&settings, metrics, &platform_client::all_topics()).await,
        )
    };
    match query.await {
        Ok(Ok(statuses)) => evaluate(&registry.url, &statuses),
        Ok(Err(error)) => error_result(&registry.url, &error),
        Err(error) => CheckResult::failed(PART, format!("{error:#}"), String::new()),
    }
}

/// The result for the worst status of all subjects.
fn evaluate(url: &str, statuses: &[SubjectStatus]) -> CheckResult {
    let of = |wanted: fn(&Registration) -> bool| {
        statuses
            .iter()
            .filter(|status| wanted(&status.registration))
            .count()
    };
    let all = count(statuses.len());
    let broken = statuses
        .iter()
        .find_map(|status| match &status.registration {
            Registration::Incompatible {
                version,
                violations,
            } => Some((&status.subject, version, violations)),
            _ => None,
        });
    if let Some((subject, version, violations)) = broken {
        let first = violations
            .first()
            .map_or_else(String::new, |violation| format!(": {violation}"));
        return CheckResult::failed(
            PART,
            format!("{url}: {subject} does not fit its registered version {version}{first}"),
            "this program and the one that registered that version are incompatible",
        );
    }
    let newer = of(|registered| matches!(registered, Registration::Newer { .. }));
    if newer > 0 {
        return CheckResult::failed(
            PART,
            format!(
                "{url}: {} of {all} contracts are registered newer than this program",
                count(newer)
            ),
            "upgrade it",
        );
    }
    let missing =
        of(|registered| matches!(registered, Registration::Missing | Registration::Older));
    if missing > 0 {
        let missing = count(missing);
        return CheckResult::failed(
            PART,
            format!("{url}: {missing} of {all} contracts are not registered"),
            REGISTER_HINT,
        );
    }
    CheckResult::ok(PART, format!("{url}: {all} contracts registered"))
}

fn error_result(url: &str, error: &Error) -> CheckResult {
    match error {
        Error::Unavailable { source, .. } | Error::Unreachable { source } => CheckResult::failed(
            PART,
            format!("{url} does not answer: {}", error_chain(source.as_ref())),
            "start it (make up), or name another with --registry",
        ),
        error => CheckResult::failed(
            PART,
            format!("{url}: {}", error_chain(error)),
            "look at the registry, or name another with --registry",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    fn status(registration: Registration) -> SubjectStatus {
        SubjectStatus {
            subject: "orders.events-value".into(),
            registration,
        }
    }

    #[test]
    fn the_worst_contract_counts() {
        let exact = || status(Registration::Exact);
        let newer = || status(Registration::Newer { version: 3 });
        assert_eq!(evaluate("u", &[exact(), exact()]).health, Health::Ok);
        for nothing in [Registration::Missing, Registration::Older] {
            let result = evaluate("u", &[exact(), status(nothing)]);
            assert_eq!(result.detail, "u: 1 of 2 contracts are not registered");
            assert_eq!(result.advice, REGISTER_HINT);
        }
        let result = evaluate("u", &[status(Registration::Missing), newer()]);
        assert_eq!(result.advice, "upgrade it");
        let broken = status(Registration::Incompatible {
            version: 2,
            violations: Vec::new(),
        });
        let result = evaluate("u", &[newer(), broken]);
        assert!(
            result.detail.contains("orders.events-value") && result.detail.contains("version 2"),
            "{result:?}"
        );
    }
}
