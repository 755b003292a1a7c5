# shellcheck shell=bash
# One stack: its folder, ports and addresses. They come from the environment at
# `up` and are recorded, so that later commands meet the same stack whatever
# their own environment says.

SERVICES=(kafka registry postgres)

STACK_DIR=${ORDERMESH_STACK_DIR:-$ROOT/.stack/data}
[[ $STACK_DIR == /* ]] || STACK_DIR=$ROOT/$STACK_DIR
RUN_DIR=$STACK_DIR/run
LOG_DIR=$STACK_DIR/log
SETTINGS=$RUN_DIR/settings

RECORDED=(KAFKA_PORT CONTROLLER_PORT REGISTRY_PORT POSTGRES_PORT
    KAFKA_ADDRESS REGISTRY_ADDRESS DATABASE_ADDRESS
    KAFKA_OURS REGISTRY_OURS POSTGRES_OURS)

# port_from VARIABLE DEFAULT: prints the port.
port_from() {
    local value=${!1:-$2}
    [[ $value =~ ^[1-9][0-9]{0,4}$ ]] && ((value < 65536)) ||
        die_usage "$1 is not a port: $value"
    printf '%s' "$value"
}

settings_from_environment() {
    KAFKA_PORT=$(port_from ORDERMESH_KAFKA_PORT 19092)
    CONTROLLER_PORT=$(port_from ORDERMESH_KAFKA_CONTROLLER_PORT $((KAFKA_PORT + 1)))
    REGISTRY_PORT=$(port_from ORDERMESH_REGISTRY_PORT 18081)
    POSTGRES_PORT=$(port_from ORDERMESH_POSTGRES_PORT 15432)

    local kafka=127.0.0.1:$KAFKA_PORT
    local registry=http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7
    local database=postgres://ordermesh@127.0.0.1:$POSTGRES_PORT/ordermesh
    KAFKA_ADDRESS=${ORDERMESH_KAFKA:-$kafka}
    REGISTRY_ADDRESS=${ORDERMESH_REGISTRY:-$registry}
    DATABASE_ADDRESS=${ORDERMESH_DATABASE:-$database}

    # Our own address in the environment (`eval "$(stack env)"`) is still ours.
    KAFKA_OURS=yes REGISTRY_OURS=yes POSTGRES_OURS=yes
    [[ $KAFKA_ADDRESS == "$kafka" ]] || KAFKA_OURS=no
    [[ $REGISTRY_ADDRESS == "$registry" ]] || REGISTRY_OURS=no
    [[ $DATABASE_ADDRESS == "$database" ]] || POSTGRES_OURS=no
}

record_settings() {
    local name
    for name in "${RECORDED[@]}"; do
        printf '%s=%q\n' "$name" "${!name}"
    done >"$SETTINGS.new"
    mv "$SETTINGS.new" "$SETTINGS"
}

# load_settings: false if no stack was brought up in this folder.
load_settings() {
    [[ -f $SETTINGS ]] || return 1
    # shellcheck source=/dev/null
    source "$SETTINGS"
}

need_settings() {
    load_settings || die "no stack is up in $STACK_DIR; start one with: compose/native/stack up"
}

# ours NAME: do we start this part, or does it stand elsewhere?
ours() {
    local name=${1^^}_OURS
    [[ ${!name} == yes ]]
}

address_of() {
    case $1 in
        kafka) printf '%s' "$KAFKA_ADDRESS" ;;
        registry) printf '%s' "$REGISTRY_ADDRESS" ;;
        # A user's own address may hold a password.
        postgres) sed -E 's#(://[^:/@]*):[^@/]*@#\1:***@#' <<<"$DATABASE_ADDRESS" ;;
    esac
}

need_service() {
    local name
    for name in "${SERVICES[@]}"; do
        [[ ${1:-} != "$name" ]] || return 0
    done
    die_usage "${1:+"unknown part '$1'; "}name one of: ${SERVICES[*]}"
}
