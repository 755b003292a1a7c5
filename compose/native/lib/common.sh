# shellcheck shell=bash
# What every script here needs: messages, paths, versions.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd -P)
NATIVE=$ROOT/compose/native
CACHE=$ROOT/.stack/cache
STACK=$NATIVE/stack
BINARY=$ROOT/target/debug/ordermesh

# shellcheck source=compose/versions.env
source "$ROOT/compose/versions.env"

# The usual codes: 64 for a wrong command line, 1 for all else.
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

# make_dir DIR: or one line that tells why not.
make_dir() {
    mkdir -p "$1" 2>/dev/null && [[ -w $1 ]] ||
        die "cannot write to $1 as $(id -un); it belongs to $(stat -c %U "$1" 2>/dev/null || echo 'another user')"
}

# take_lock FILE: waits for other commands on the same folder; held until exit.
take_lock() {
    exec 9>"$1" || die "cannot write $1"
    flock -w 300 9 || die "another command has been at work here for 5 minutes (lock $1)"
}

# port_in_use PORT: does anything answer on the loopback address?
port_in_use() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# need_port PORT VARIABLE WHO: nobody has it, and nobody else asked for it here.
need_port() {
    if [[ " ${NEEDED_PORTS:-} " == *" $1 "* ]]; then
        die "port $1 for $3 is that of another part too; set $2 to another port"
    fi
    NEEDED_PORTS="${NEEDED_PORTS:-} $1"
    if port_in_use "$1"; then
        die "port $1 for $3 is in use; free it or set $2 to another port"
    fi
}

# step NAME COMMAND…: the name goes before the output and, on failure, after it.
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
