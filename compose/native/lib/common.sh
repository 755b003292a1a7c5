# shellcheck shell=bash
# Shared by all scripts: messages, paths, versions.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd -P)
NATIVE=$ROOT/compose/native
CACHE=$ROOT/.stack/cache
STACK=$NATIVE/stack
BINARY=$ROOT/target/debug/ordermesh

# shellcheck source=compose/versions.env
source "$ROOT/compose/versions.env"

# Exit codes: 64 for a wrong command line, 1 for all other errors.
readonly USAGE_ERROR=64

say() {
    printf '%s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

die_usage() {
    printf 'error: %s\n' "$*" >&2
    exit "$USAGE_ERROR"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# make_dir DIR: creates the folder, or exits with the reason in one line.
make_dir() {
    mkdir -p "$1" 2>/dev/null && [[ -w $1 ]] ||
        die "cannot write to $1 as $(id -un); it belongs to $(stat -c %U "$1" 2>/dev/null || echo 'another user')"
}

# take_lock FILE: waits for other commands on the same folder; holds the lock
# until exit.
take_lock() {
    exec 9>"$1" || die "cannot write $1"
    flock -w 300 9 || die "another command has been at work here for 5 minutes (lock $1)"
}

# port_in_use PORT: whether a server accepts connections on the loopback address.
port_in_use() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# need_port PORT VARIABLE PART: exits unless the port is free and no other part
# of this stack uses it.
need_port() {
    if [[ " ${NEEDED_PORTS:-} " == *" $1 "* ]]; then
        die "port $1 for $3 is that of another part too; set $2 to another port"
    fi
    NEEDED_PORTS="${NEEDED_PORTS:-} $1"
    if port_in_use "$1"; then
        die "port $1 for $3 is in use; free it or set $2 to another port"
    fi
}

# step NAME COMMAND…: prints the name before the output and, on failure, after it.
step() {
    local name=$1 code=0
    shift
    say "== $name"
    "$@" || code=$?
    if ((code != 0)); then
        printf 'error: the step "%s" failed (exit %d)\n' "$name" "$code" >&2
        exit "$code"
    fi
}

# build_binary: a development build, with the library features that simulation
# and tests need, so that one build serves all. A release has no such feature.
build_binary() {
    cargo build --locked -p ordermesh --features engine/simulation,query/simulation,tokio/test-util
}
