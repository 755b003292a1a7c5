# shellcheck shell=bash
# The schema registry, with its data in the stack's PostgreSQL.

registry_mark() {
    printf '%s' "-Dordermesh.stack=$STACK_DIR"
}

start_registry() {
    local jar=$CACHE/registry/apicurio-registry-app-$APICURIO_VERSION-runner.jar
    local storage pool=apicurio.datasource
    if ours postgres; then
        running postgres || die "the registry keeps its data in postgres, which is not running"
        storage=(-Dapicurio.storage.sql.kind=postgresql
            "-Dapicurio.datasource.url=jdbc:postgresql://127.0.0.1:$POSTGRES_PORT/registry"
            -Dapicurio.datasource.username=registry -Dapicurio.datasource.password=registry)
    else
        # No database for the registry is created in the user's PostgreSQL.
        mkdir -p "$STACK_DIR/registry"
        storage=(-Dapicurio.storage.sql.kind=h2
            "-Dapicurio.datasource.url=jdbc:h2:file:$STACK_DIR/registry/data")
    fi
    # Small: only the first compiler, the serial collector, and a pool of one
    # instead of 20 (the pools blue and green are never used).
    launch registry "$JAVA" "$(registry_mark)" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -XX:+ExitOnOutOfMemoryError \
        -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$REGISTRY_PORT" \
        -Dquarkus.http.access-log.enabled=false \
        -Dapicurio.storage.kind=sql "${storage[@]}" \
        "-D$pool.jdbc.initial-size=1" "-D$pool.jdbc.min-size=1" "-D$pool.jdbc.max-size=10" \
        "-D$pool.blue.jdbc.initial-size=0" "-D$pool.blue.jdbc.min-size=0" \
        "-D$pool.green.jdbc.initial-size=0" "-D$pool.green.jdbc.min-size=0" \
        -Dquarkus.datasource.postgresql.jdbc.validate-on-borrow=true \
        -jar "$jar"
    await_ready registry probe_registry
}

probe_registry() {
    curl -sf -m 5 -o /dev/null "http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7/subjects"
}

stop_registry() {
    end_process registry "$(registry_mark)" TERM
}

remove_registry() {
    rm -rf "$STACK_DIR/registry"
}
