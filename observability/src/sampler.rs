//! Which traces that begin here are recorded.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceState};
use opentelemetry::{Context, KeyValue, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Follows the decision of a parent; without one, a span that is linked to something recorded is recorded too, and of
/// the rest a share. So the span of a batch is there whenever something in the batch is.
#[derive(Clone, Debug)]
pub(crate) struct Head(Sampler);

impl Head {
    /// `ratio` of the traces that begin here, 0 to 1.
    pub(crate) fn new(ratio: f64) -> Self {
        let roots = Sampler::TraceIdRatioBased(ratio);
        Self(Sampler::ParentBased(Box::new(roots)))
    }
}

impl ShouldSample for Head {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let root = parent_context.is_none_or(|context| !context.has_active_span());
        if root && links.iter().any(|link| link.span_context.is_sampled()) {
            return SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: TraceState::default(),
            };
        }
        self.0
            .should_sample(parent_context, trace_id, name, span_kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::TraceParent;

    const SAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    /// Whether a root span that is linked to `links` is sampled, where no trace is begun.
    fn sampled_with(links: &[&[u8]]) -> bool {
        let provider = SdkTracerProvider::builder()
            .with_sampler(Head::new(0.0))
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("batch");
            for link in links {
                TraceParent::parse(link)
                    .expect("it is well formed")
                    .link(&span);
            }
            TraceParent::of(&span).is_some_and(TraceParent::is_sampled)
        })
    }

    #[test]
    fn a_batch_is_recorded_when_something_in_it_is() {
        assert!(!sampled_with(&[]));
        assert!(!sampled_with(&[UNSAMPLED]));
        assert!(sampled_with(&[UNSAMPLED, SAMPLED]));
    }
}
