# shellcheck shell=bash
# Jaeger: stores traces in memory and serves queries.

jaeger_mark() {
    printf '%s' "--config-file=$STACK_DIR/jaeger/jaeger.properties"
}

start_jaeger() {
    mkdir -p "$STACK_DIR/jaeger"
    sed -e "s|@PORT@|$JAEGER_PORT|" -e "s|@OTLP_PORT@|$JAEGER_OTLP_PORT|" \
        "$NATIVE/jaeger/jaeger.properties" >"$STACK_DIR/jaeger/jaeger.properties"
    launch jaeger env SPAN_STORAGE_TYPE=memory "$CACHE/jaeger/jaeger" "$(jaeger_mark)"
    await_ready jaeger probe_jaeger
}

probe_jaeger() {
    curl -sf -m 5 -o /dev/null "http://127.0.0.1:$JAEGER_PORT/api/services" &&
        port_in_use "$JAEGER_OTLP_PORT"
}

stop_jaeger() {
    end_process jaeger "$(jaeger_mark)" TERM
}

remove_jaeger() {
    rm -rf "$STACK_DIR/jaeger"
}
