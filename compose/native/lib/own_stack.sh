# shellcheck shell=bash
# A stack with a folder, ports and fresh data of its own, gone when the script
# ends; it runs beside the one of `make up`.

# own_stack NAME SHIFT: from now on "$STACK" means it.
own_stack() {
    export ORDERMESH_STACK_DIR=$ROOT/.stack/$1
    shift_port ORDERMESH_KAFKA_PORT 19092 "$2"
    shift_port ORDERMESH_KAFKA_CONTROLLER_PORT $((ORDERMESH_KAFKA_PORT - $2 + 1)) "$2"
    shift_port ORDERMESH_REGISTRY_PORT 18081 "$2"
    shift_port ORDERMESH_POSTGRES_PORT 15432 "$2"
    shift_port ORDERMESH_ADMIN_PORT 9464 "$2"
    shift_port ORDERMESH_GATEWAY_PORT 8080 "$2"
    make_dir "$ORDERMESH_STACK_DIR"
    # Closed in all that `stack` leaves running: held by this script only.
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
    "$STACK" up
    local addresses
    addresses=$("$STACK" env)
    eval "$addresses"
}

# Quietly: the last lines on the screen are the result. Data and logs stay
# until the next run.
stop_own_stack() {
    "$STACK" down >/dev/null || true
}
