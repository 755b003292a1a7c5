# shellcheck shell=bash
# A separate stack with its own folder, ports and new data. It runs beside the
# stack of `make up` and is stopped when the script ends.

# own_stack NAME SHIFT: from now on "$STACK" controls the stack NAME, whose ports
# are SHIFT above the default.
own_stack() {
    # Settings of the user's own stack do not apply to this one.
    unset OTEL_EXPORTER_OTLP_ENDPOINT ORDERMESH_TRACE_RATIO ORDERMESH_RULES_DIR ORDERMESH_ALERTMANAGER_CONFIG \
        ORDERMESH_JAEGER_OTLP_PORT ORDERMESH_COLLECTOR_METRICS_PORT
    export ORDERMESH_STACK_DIR=$ROOT/.stack/$1
    shift_port ORDERMESH_KAFKA_PORT 19092 "$2"
    shift_port ORDERMESH_KAFKA_CONTROLLER_PORT $((ORDERMESH_KAFKA_PORT - $2 - 1)) "$2"
    shift_port ORDERMESH_REGISTRY_PORT 18081 "$2"
    shift_port ORDERMESH_POSTGRES_PORT 15432 "$2"
    shift_port ORDERMESH_JAEGER_PORT 16686 "$2"
    shift_port ORDERMESH_COLLECTOR_PORT 14317 "$2"
    shift_port ORDERMESH_PROMETHEUS_PORT 19090 "$2"
    shift_port ORDERMESH_ALERTMANAGER_PORT 19093 "$2"
    shift_port ORDERMESH_NODE_EXPORTER_PORT 19100 "$2"
    export ORDERMESH_ADMIN=127.0.0.1:$((9464 + $2)) ORDERMESH_PUBLIC=127.0.0.1:$((8080 + $2))
    export ORDERMESH_ORDERS_LISTEN=127.0.0.1:$((7101 + $2)) ORDERMESH_INVENTORY_LISTEN=127.0.0.1:$((7102 + $2))
    export ORDERMESH_QUERY_LISTEN=127.0.0.1:$((7103 + $2)) ORDERMESH_SANDBOX_LISTEN=127.0.0.1:$((7104 + $2))
    export ORDERMESH_SANDBOX=$ORDERMESH_SANDBOX_LISTEN ORDERMESH_SANDBOX_LEDGER=$ORDERMESH_STACK_DIR/sandbox
    make_dir "$ORDERMESH_STACK_DIR"
    # Processes of the stack do not inherit it: only this script holds the lock.
    exec 9>"$ORDERMESH_STACK_DIR/script.lock"
    flock -n 9 || die "another 'make $1' is at work in this folder"
}

shift_port() {
    export "$1=$((${!1:-$2} + $3))"
}

start_own_stack() {
    trap stop_own_stack EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    "$STACK" reset
    rm -rf "$ORDERMESH_SANDBOX_LEDGER"
    "$STACK" up
    local addresses
    addresses=$("$STACK" env)
    eval "$addresses"
}

# Prints nothing: the last lines on the screen are the result. Data and logs stay
# until the next run.
stop_own_stack() {
    "$STACK" down >/dev/null || true
}
