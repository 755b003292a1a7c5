# shellcheck shell=bash
# Prometheus: scrapes every process, and evaluates the rules.

PROMETHEUS_CACHE=$CACHE/prometheus/usr

prometheus_mark() {
    printf '%s' "--config.file=$STACK_DIR/prometheus/prometheus.yml"
}

start_prometheus() {
    local home=$STACK_DIR/prometheus web=$PROMETHEUS_CACHE/share/prometheus/web
    mkdir -p "$home"
    sed -E -e "s|^( *scrape_interval:).*|\1 $SCRAPE_INTERVAL|" \
        -e "s|^( *evaluation_interval:).*|\1 $EVALUATION_INTERVAL|" \
        "$ROOT/observability/prometheus/prometheus.yml" >"$home/prometheus.yml"
    ln -sfn "$RULES_DIR" "$home/rules"
    launch prometheus "$PROMETHEUS_CACHE/bin/prometheus" "$(prometheus_mark)" \
        "--web.listen-address=127.0.0.1:$PROMETHEUS_PORT" --web.enable-lifecycle \
        "--web.local-assets=$web" "--web.console.templates=$web" "--web.console.libraries=$web" \
        "--storage.tsdb.path=$home/data" \
        --storage.tsdb.retention.time=3d --storage.tsdb.retention.size=512MB \
        --enable-feature=exemplar-storage "--rules.alert.resend-delay=$RESEND_DELAY"
    await_ready prometheus probe_prometheus
}

# Only parts of this stack: a part that was never started is not down.
write_part_targets() {
    local name
    mkdir -p "$STACK_DIR/prometheus/targets"
    for name in "${SERVICES[@]}"; do
        case $name in
            collector) write_targets collector "127.0.0.1:$COLLECTOR_METRICS_PORT" ;;
            prometheus) write_targets prometheus "127.0.0.1:$PROMETHEUS_PORT" ;;
            alertmanager) write_targets alertmanager "127.0.0.1:$ALERTMANAGER_PORT" ;;
            node-exporter) write_targets node "127.0.0.1:$NODE_EXPORTER_PORT" ;;
        esac
    done
}

# write_targets JOB ADDRESS…: replaces the list atomically; Prometheus reloads it.
write_targets() {
    local file=$STACK_DIR/prometheus/targets/$1.json addresses
    shift
    addresses=$(printf '"%s",' "$@")
    (($# > 0)) || addresses=
    printf '[{ "targets": [%s] }]\n' "${addresses%,}" >"$file.new"
    mv "$file.new" "$file"
}

probe_prometheus() {
    curl -sf -m 5 -o /dev/null "http://127.0.0.1:$PROMETHEUS_PORT/-/ready"
}

stop_prometheus() {
    end_process prometheus "$(prometheus_mark)" TERM
}

remove_prometheus() {
    rm -rf "$STACK_DIR/prometheus"
}
