# shellcheck shell=bash
# The ordermesh services as one background process.

# Read by lib/process.sh.
# shellcheck disable=SC2034
RUN_DIR=$ROOT/.stack/run LOG_DIR=$ROOT/.stack/run

export ORDERMESH_ADMIN=${ORDERMESH_ADMIN:-127.0.0.1:9464}
export ORDERMESH_PUBLIC=${ORDERMESH_PUBLIC:-127.0.0.1:8080}

services_running() {
    pid_of ordermesh "$BINARY"
}

start_services() {
    need_port "${ORDERMESH_ADMIN##*:}" ORDERMESH_ADMIN "the services' health"
    need_port "${ORDERMESH_PUBLIC##*:}" ORDERMESH_PUBLIC "the public API"
    launch ordermesh "$BINARY" serve all
    await_ready ordermesh probe_services
}

probe_services() {
    curl -sf -m 5 -o /dev/null "http://$ORDERMESH_ADMIN/health/ready"
}

stop_services() {
    end_process ordermesh "$BINARY" TERM
}
