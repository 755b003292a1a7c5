# shellcheck shell=bash
# One stack: its folder, ports and addresses. `up` reads them from the environment
# and records them, so that later commands use the same stack whatever their own
# environment.

CORE=(kafka registry postgres)
TELEMETRY_PARTS=(jaeger collector prometheus alertmanager node-exporter)
# SERVICES: the parts of this stack, core and recorded telemetry. PARTS: all parts.
SERVICES=("${CORE[@]}")
PARTS=("${CORE[@]}" "${TELEMETRY_PARTS[@]}")

STACK_DIR=${ORDERMESH_STACK_DIR:-$ROOT/.stack/data}
[[ $STACK_DIR == /* ]] || STACK_DIR=$ROOT/$STACK_DIR
RUN_DIR=$STACK_DIR/run
LOG_DIR=$STACK_DIR/log
SETTINGS=$RUN_DIR/settings
TELEMETRY=

RECORDED=(KAFKA_PORT CONTROLLER_PORT KAFKA_LINKS REGISTRY_PORT POSTGRES_PORT
    KAFKA_ADDRESS REGISTRY_ADDRESS DATABASE_ADDRESS
    KAFKA_OURS REGISTRY_OURS POSTGRES_OURS
    TELEMETRY JAEGER_PORT JAEGER_OTLP_PORT COLLECTOR_PORT COLLECTOR_METRICS_PORT
    PROMETHEUS_PORT ALERTMANAGER_PORT NODE_EXPORTER_PORT
    SCRAPE_INTERVAL EVALUATION_INTERVAL RESEND_DELAY RULES_DIR ALERTMANAGER_CONFIG
    TRACE_WAIT TRACE_SLOW_MS TRACE_KEEP_PERCENT)

# port_from VARIABLE DEFAULT: prints the port.
port_from() {
    local value=${!1:-$2}
    [[ $value =~ ^[1-9][0-9]{0,4}$ ]] && ((value < 65536)) ||
        die_usage "$1 is not a port: $value"
    printf '%s' "$value"
}

settings_from_environment() {
    KAFKA_PORT=$(port_from ORDERMESH_KAFKA_PORT 19092)
    CONTROLLER_PORT=$(port_from ORDERMESH_KAFKA_CONTROLLER_PORT $((KAFKA_PORT - 1)))
    KAFKA_LINKS=${ORDERMESH_KAFKA_LINKS:-}
    [[ $KAFKA_LINKS =~ ^([0-9]+:[0-9]+( |$))*$ ]] ||
        die_usage "ORDERMESH_KAFKA_LINKS is not a list of port:port: $KAFKA_LINKS"
    REGISTRY_PORT=$(port_from ORDERMESH_REGISTRY_PORT 18081)
    POSTGRES_PORT=$(port_from ORDERMESH_POSTGRES_PORT 15432)

    local kafka=127.0.0.1:$KAFKA_PORT
    local registry=http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7
    local database=postgres://ordermesh@127.0.0.1:$POSTGRES_PORT/ordermesh
    KAFKA_ADDRESS=${ORDERMESH_KAFKA:-$kafka}
    REGISTRY_ADDRESS=${ORDERMESH_REGISTRY:-$registry}
    DATABASE_ADDRESS=${ORDERMESH_DATABASE:-$database}

    # The stack's own address in the environment (`eval "$(stack env)"`) is no
    # address of a user's part.
    KAFKA_OURS=yes REGISTRY_OURS=yes POSTGRES_OURS=yes
    [[ $KAFKA_ADDRESS == "$kafka" ]] || KAFKA_OURS=no
    [[ $REGISTRY_ADDRESS == "$registry" ]] || REGISTRY_OURS=no
    [[ $DATABASE_ADDRESS == "$database" ]] || POSTGRES_OURS=no
}

telemetry_settings_from_environment() {
    JAEGER_PORT=$(port_from ORDERMESH_JAEGER_PORT 16686)
    JAEGER_OTLP_PORT=$(port_from ORDERMESH_JAEGER_OTLP_PORT $((JAEGER_PORT - 2368)))
    COLLECTOR_PORT=$(port_from ORDERMESH_COLLECTOR_PORT 14317)
    COLLECTOR_METRICS_PORT=$(port_from ORDERMESH_COLLECTOR_METRICS_PORT $((COLLECTOR_PORT + 4571)))
    PROMETHEUS_PORT=$(port_from ORDERMESH_PROMETHEUS_PORT 19090)
    ALERTMANAGER_PORT=$(port_from ORDERMESH_ALERTMANAGER_PORT 19093)
    NODE_EXPORTER_PORT=$(port_from ORDERMESH_NODE_EXPORTER_PORT 19100)
    SCRAPE_INTERVAL=${ORDERMESH_SCRAPE_INTERVAL:-5s}
    EVALUATION_INTERVAL=${ORDERMESH_EVALUATION_INTERVAL:-5s}
    RESEND_DELAY=${ORDERMESH_RESEND_DELAY:-1m}
    RULES_DIR=$(path_from ORDERMESH_RULES_DIR observability/prometheus/rules)
    ALERTMANAGER_CONFIG=$(path_from ORDERMESH_ALERTMANAGER_CONFIG observability/alertmanager/alertmanager.yml)
    TRACE_WAIT=${ORDERMESH_TRACE_WAIT:-10s}
    TRACE_SLOW_MS=${ORDERMESH_TRACE_SLOW_MS:-5000}
    TRACE_KEEP_PERCENT=${ORDERMESH_TRACE_KEEP_PERCENT:-100}
}

# path_from VARIABLE DEFAULT: prints the path; relative paths start in the project.
path_from() {
    local value=${!1:-$2}
    [[ $value == /* ]] || value=$ROOT/$value
    [[ -e $value ]] || die_usage "$1 is not there: $value"
    printf '%s' "$value"
}

record_settings() {
    local name
    for name in "${RECORDED[@]}"; do
        printf '%s=%q\n' "$name" "${!name-}"
    done >"$SETTINGS.new"
    mv "$SETTINGS.new" "$SETTINGS"
}

# load_settings: fails if no stack was started in this folder.
load_settings() {
    [[ -f $SETTINGS ]] || return 1
    # shellcheck source=/dev/null
    source "$SETTINGS"
    compose_services
}

# TELEMETRY is recorded as words; names have no spaces.
compose_services() {
    local telemetry
    read -ra telemetry <<<"$TELEMETRY"
    SERVICES=("${CORE[@]}" "${telemetry[@]}")
}

need_settings() {
    load_settings || die "no stack is up in $STACK_DIR; start one with: compose/native/stack up"
}

is_telemetry() {
    [[ " ${TELEMETRY_PARTS[*]} " == *" $1 "* ]]
}

# ours NAME: whether the stack starts this part; otherwise the user runs it.
ours() {
    ! is_telemetry "$1" || return 0
    local name=${1^^}_OURS
    [[ ${!name} == yes ]]
}

address_of() {
    case $1 in
        kafka) printf '%s' "$KAFKA_ADDRESS" ;;
        registry) printf '%s' "$REGISTRY_ADDRESS" ;;
        # A user's own address may contain a password.
        postgres) sed -E 's#(://[^:/@]*):[^@/]*@#\1:***@#' <<<"$DATABASE_ADDRESS" ;;
        jaeger) printf 'http://127.0.0.1:%s' "$JAEGER_PORT" ;;
        collector) printf 'http://127.0.0.1:%s' "$COLLECTOR_PORT" ;;
        prometheus) printf 'http://127.0.0.1:%s' "$PROMETHEUS_PORT" ;;
        alertmanager) printf 'http://127.0.0.1:%s' "$ALERTMANAGER_PORT" ;;
        node-exporter) printf 'http://127.0.0.1:%s' "$NODE_EXPORTER_PORT" ;;
    esac
}

need_service() {
    local name
    for name in "${PARTS[@]}"; do
        [[ ${1:-} != "$name" ]] || return 0
    done
    die_usage "${1:+"unknown part '$1'; "}name one of: ${PARTS[*]}"
}
