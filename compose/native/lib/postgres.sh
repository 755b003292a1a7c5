# shellcheck shell=bash
# PostgreSQL: a separate cluster. A cluster of the distribution is never touched.

POSTGRES_BIN=${ORDERMESH_POSTGRES_BIN:-/usr/lib/postgresql/$POSTGRES_MAJOR/bin}

# The server refuses to run as root, so root needs another user for it.
POSTGRES_AS=()
if ((EUID == 0)); then
    POSTGRES_USER=${ORDERMESH_POSTGRES_USER:-postgres}
    POSTGRES_AS=(setpriv "--reuid=$POSTGRES_USER" "--regid=$POSTGRES_USER" --init-groups --)
fi

as_postgres() {
    "${POSTGRES_AS[@]}" "$@"
}

# The folder of the cluster is chosen once and recorded.
postgres_home() {
    if [[ -f $STACK_DIR/postgres.home ]]; then
        cat "$STACK_DIR/postgres.home"
    else
        printf '%s' "$STACK_DIR/postgres"
    fi
}

postgres_mark() {
    printf '%s' "$(postgres_home)/data"
}

choose_postgres_home() {
    [[ ! -f $STACK_DIR/postgres.home ]] || return 0
    local home=$STACK_DIR/postgres
    mkdir -p "$home"
    if ((EUID == 0)); then
        getent passwd "$POSTGRES_USER" >/dev/null ||
            useradd --system --user-group "$POSTGRES_USER" ||
            die "cannot make the user $POSTGRES_USER, and PostgreSQL does not run as root"
        chown "$POSTGRES_USER:" "$home"
    fi
    # The server's user may have no access to the project (below /root, for
    # example), and the path of a Unix socket is limited to 107 bytes.
    if ! as_postgres test -w "$home" 2>/dev/null || ((${#home} > 80)); then
        rmdir "$home"
        home=/var/tmp/ordermesh-$EUID-$(cksum <<<"$STACK_DIR" | cut -d' ' -f1)
        # Only a new folder or one that this user owns.
        if ! mkdir -m 700 "$home" 2>/dev/null; then
            [[ ! -L $home && $(stat -c %U "$home") == "${POSTGRES_USER:-$(id -un)}" ]] ||
                die "$home is in the way; remove it or set ORDERMESH_STACK_DIR to another folder"
        fi
        if ((EUID == 0)); then
            chown "$POSTGRES_USER:" "$home"
        fi
    fi
    printf '%s\n' "$home" >"$STACK_DIR/postgres.home"
}

start_postgres() {
    local home log
    log=$(log_file postgres)
    choose_postgres_home
    home=$(postgres_home)
    # The server's user may have no access to the current folder.
    cd /
    if [[ ! -f $home/initialised ]]; then
        as_postgres rm -rf "$home/data"
        as_postgres "$POSTGRES_BIN/initdb" -D "$home/data" -U postgres -A trust -E UTF8 --no-locale \
            >>"$log" 2>&1 || die "postgres could not make its data folder; its log: $log"
        as_postgres touch "$home/initialised"
    fi
    remove_stale_locks "$home"
    launch postgres "${POSTGRES_AS[@]}" "$POSTGRES_BIN/postgres" -D "$home/data" \
        -c listen_addresses=127.0.0.1 -c "port=$POSTGRES_PORT" \
        -c "unix_socket_directories=$home" \
        -c shared_buffers=64MB
    await_ready postgres probe_postgres
    create_databases >>"$log" 2>&1 ||
        die "postgres could not make its roles and databases; its log: $log"
}

# After a kill, the server would mistake its own zombie, or another process with
# its old pid, for a running server. A real server, or a remaining child, has the
# data folder as its working folder.
remove_stale_locks() {
    local deadline=$((SECONDS + 5))
    while process_in "$1/data"; do
        ((SECONDS < deadline)) || die "process $PID still works in $1/data; stop it first"
        sleep "$PROBE"
    done
    as_postgres rm -f "$1/data/postmaster.pid" "$1/.s.PGSQL.$POSTGRES_PORT.lock"
}

probe_postgres() {
    "$POSTGRES_BIN/pg_isready" -q -h 127.0.0.1 -p "$POSTGRES_PORT" -U postgres
}

# The role ordermesh may create databases: each test uses its own.
create_databases() {
    "$POSTGRES_BIN/psql" -q -X -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$POSTGRES_PORT" -U postgres <<'SQL'
SELECT format('CREATE ROLE %I LOGIN CREATEDB', 'ordermesh')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ordermesh') \gexec
SELECT format('CREATE ROLE %I LOGIN', 'registry')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'registry') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', name, name)
  FROM unnest(ARRAY['ordermesh', 'registry']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec
SQL
}

stop_postgres() {
    # Fast shutdown: disconnects clients instead of waiting for them.
    end_process postgres "$(postgres_mark)" INT
}

remove_postgres() {
    local home
    home=$(postgres_home)
    rm -rf "$home" "$STACK_DIR/postgres.home"
}
