# shellcheck shell=bash
# Alertmanager: groups the alerts of Prometheus and sends notifications.

alertmanager_mark() {
    printf '%s' "--storage.path=$STACK_DIR/alertmanager"
}

start_alertmanager() {
    mkdir -p "$STACK_DIR/alertmanager"
    # The patched binary reads its templates relative to this folder.
    cd "$CACHE/alertmanager/usr"
    launch alertmanager bin/prometheus-alertmanager "$(alertmanager_mark)" \
        "--config.file=$ALERTMANAGER_CONFIG" \
        "--web.listen-address=127.0.0.1:$ALERTMANAGER_PORT" --cluster.listen-address=
    await_ready alertmanager probe_alertmanager
}

probe_alertmanager() {
    curl -sf -m 5 -o /dev/null "http://127.0.0.1:$ALERTMANAGER_PORT/-/ready"
}

stop_alertmanager() {
    end_process alertmanager "$(alertmanager_mark)" TERM
}

remove_alertmanager() {
    rm -rf "$STACK_DIR/alertmanager"
}
