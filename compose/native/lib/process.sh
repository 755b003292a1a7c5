# shellcheck shell=bash
# Background processes with a pid file ($RUN_DIR) and a log file ($LOG_DIR).
# A pid file may be stale and its number reused by another process: a process is
# ours only if its command line has the given mark as an argument.

START_SECONDS=${ORDERMESH_START_SECONDS:-60}
STOP_SECONDS=30
PROBE=0.1

log_file() {
    printf '%s' "$LOG_DIR/$1.log"
}

# launch NAME COMMAND…: starts a process in its own session, so that it survives
# the shell.
launch() {
    local name=$1 log
    shift
    log=$(log_file "$name")
    # Keeps one old log. The log is rotated only here, where no process writes to it.
    if [[ -f $log ]] && (($(stat -c %s "$log") > 20000000)); then
        mv -f "$log" "$log.1"
    fi
    setsid nohup "$@" >>"$log" 2>&1 </dev/null 9>&- &
    printf '%s\n' "$!" >"$RUN_DIR/$name.pid"
}

# alive PID: a zombie is not alive; its parent may never reap it. A process is
# already a zombie while its other threads end and still hold ports and files.
alive() {
    local stat state threads
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -r state _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ threads _ <<<"${stat##*) }"
    [[ $state != [ZX] ]] || ((threads > 1))
}

# has_argument PID MARK
has_argument() {
    local argument
    while IFS= read -r -d '' argument; do
        [[ $argument != "$2" ]] || return 0
    done 2>/dev/null <"/proc/$1/cmdline"
    return 1
}

# pid_of NAME MARK: sets PID, or fails if the process is not running.
pid_of() {
    PID=
    [[ -f $RUN_DIR/$1.pid ]] || return 1
    read -r PID <"$RUN_DIR/$1.pid" || return 1
    [[ $PID =~ ^[0-9]+$ ]] && alive "$PID" && has_argument "$PID" "$2"
}

children_of() {
    local file stat pid parent
    for file in /proc/[0-9]*/stat; do
        { read -r stat <"$file"; } 2>/dev/null || continue
        read -r _ parent _ <<<"${stat##*) }"
        if [[ $parent == "$1" ]]; then
            pid=${file%/stat}
            printf '%s\n' "${pid#/proc/}"
        fi
    done
}

# await_ready NAME PROBE_COMMAND…: waits for a process that was just launched.
await_ready() {
    local name=$1 deadline=$((SECONDS + START_SECONDS)) pid
    shift
    read -r pid <"$RUN_DIR/$name.pid"
    until "$@"; do
        alive "$pid" || die "$name ended while it was starting; its log: $(log_file "$name")"
        ((SECONDS < deadline)) ||
            die "$name was not ready after $START_SECONDS s; its log: $(log_file "$name")"
        sleep "$PROBE"
    done
}

# await_end PID SECONDS
await_end() {
    local deadline=$((SECONDS + $2))
    while alive "$1"; do
        ((SECONDS < deadline)) || return 1
        sleep "$PROBE"
    done
}

# process_in FOLDER: sets PID to a process with this working folder.
process_in() {
    local link
    for link in /proc/[0-9]*/cwd; do
        if [[ $link -ef $1 ]]; then
            PID=${link%/cwd}
            PID=${PID#/proc/}
            return
        fi
    done 2>/dev/null
    return 1
}

# end_process NAME MARK SIGNAL: sends the signal, waits, kills at the deadline.
end_process() {
    local pid
    if pid_of "$1" "$2"; then
        pid=$PID
        kill -s "$3" "$pid" 2>/dev/null || true
        if ! await_end "$pid" "$STOP_SECONDS"; then
            say "$1 did not stop in $STOP_SECONDS s: killed"
            kill_process "$1" "$2"
        fi
    fi
    rm -f "$RUN_DIR/$1.pid"
}

# kill_process NAME MARK: kills a process and its children at once, as in a power
# failure, and returns when all are gone.
kill_process() {
    local pid pids
    pid_of "$1" "$2" || die "$1 is not running"
    mapfile -t pids < <(printf '%s\n' "$PID"; children_of "$PID")
    kill -9 "${pids[@]}" 2>/dev/null || true
    for pid in "${pids[@]}"; do
        await_end "$pid" "$STOP_SECONDS" || die "process $pid of $1 does not die"
    done
    rm -f "$RUN_DIR/$1.pid"
}

# memory_of PID: MB of a process and its children; shared pages count once.
memory_of() {
    local pid field value rest sum=0
    for pid in "$1" $(children_of "$1"); do
        while read -r field value rest; do
            if [[ $field == Pss: ]]; then
                sum=$((sum + value))
            fi
        done 2>/dev/null <"/proc/$pid/smaps_rollup" || true
    done
    printf '%d' $((sum / 1024))
}
