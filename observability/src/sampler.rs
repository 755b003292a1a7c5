//! The sampling decision of new traces.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceState};
use opentelemetry::{Context, KeyValue, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// A head sampler. A span with a parent follows the parent's decision. A root span is sampled when it is linked to a
/// sampled span, otherwise by ratio. So the span of a window or of a batch is recorded whenever a record in it is.
#[derive(Clone, Debug)]
pub(crate) struct HeadSampler(Sampler);

impl HeadSampler {
    /// A sampler that records the share `ratio` of new traces, 0 to 1.
    pub(crate) fn new(ratio: f64) -> Self {
        let roots = Sampler::TraceIdRatioBased(ratio);
        Self(Sampler::ParentBased(Box::new(roots)))
    }
}

impl ShouldSample for HeadSampler {
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

    /// Whether a root span with these links is sampled at ratio 0.
    fn sampled_with(links: &[&[u8]]) -> bool {
        let provider = SdkTracerProvider::builder()
            .with_sampler(HeadSampler::new(0.0))
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
    fn a_batch_with_a_sampled_link_is_sampled() {
        assert!(!sampled_with(&[]));
        assert!(!sampled_with(&[UNSAMPLED]));
        assert!(sampled_with(&[UNSAMPLED, SAMPLED]));
    }
}
