# shellcheck shell=bash
# The OpenTelemetry Collector: receives the spans of all processes, samples
# traces, and forwards them to Jaeger.

collector_mark() {
    printf '%s' "--config=$STACK_DIR/collector/config.yaml"
}

start_collector() {
    mkdir -p "$STACK_DIR/collector"
    cp "$ROOT/observability/collector/config.yaml" "$STACK_DIR/collector/config.yaml"
    launch collector env "COLLECTOR_LISTEN=127.0.0.1:$COLLECTOR_PORT" \
        COLLECTOR_METRICS_HOST=127.0.0.1 "COLLECTOR_METRICS_PORT=$COLLECTOR_METRICS_PORT" \
        "JAEGER_OTLP=127.0.0.1:$JAEGER_OTLP_PORT" \
        "ORDERMESH_TRACE_WAIT=$TRACE_WAIT" "ORDERMESH_TRACE_SLOW_MS=$TRACE_SLOW_MS" \
        "ORDERMESH_TRACE_KEEP_PERCENT=$TRACE_KEEP_PERCENT" GOMEMLIMIT=160MiB \
        "$CACHE/collector/collector" "$(collector_mark)"
    await_ready collector probe_collector
}

probe_collector() {
    curl -sf -m 5 -o /dev/null "http://127.0.0.1:$COLLECTOR_METRICS_PORT/metrics" &&
        port_in_use "$COLLECTOR_PORT"
}

stop_collector() {
    end_process collector "$(collector_mark)" TERM
}

remove_collector() {
    rm -rf "$STACK_DIR/collector"
}
