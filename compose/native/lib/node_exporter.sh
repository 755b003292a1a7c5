# shellcheck shell=bash
# node-exporter: processor, memory, disks and network of this machine.

node-exporter_mark() {
    printf '%s' "--collector.textfile.directory=$STACK_DIR/node-exporter"
}

start_node-exporter() {
    mkdir -p "$STACK_DIR/node-exporter"
    launch node-exporter "$CACHE/node-exporter/usr/bin/prometheus-node-exporter" \
        "$(node-exporter_mark)" "--web.listen-address=127.0.0.1:$NODE_EXPORTER_PORT"
    await_ready node-exporter probe_node-exporter
}

probe_node-exporter() {
    curl -sf -m 5 -o /dev/null "http://127.0.0.1:$NODE_EXPORTER_PORT/"
}

stop_node-exporter() {
    end_process node-exporter "$(node-exporter_mark)" TERM
}

remove_node-exporter() {
    rm -rf "$STACK_DIR/node-exporter"
}
