# shellcheck shell=bash
# Kafka: one KRaft node.

kafka_mark() {
    printf '%s' "$STACK_DIR/kafka/server.properties"
}

kafka_java() {
    local log=org.slf4j.simpleLogger
    JAVA_ARGUMENTS=("$JAVA" -cp "$CACHE/kafka/*"
        "-D$log.showDateTime=true" "-D$log.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX"
        "-D$log.showShortLogName=true" "-D$log.defaultLogLevel=info"
        # It logs a thousand settings at each start.
        "-D$log.log.org.apache.kafka.common.config.AbstractConfig=warn")
}

# add_links FILE: adds a listener for each link. Kafka advertises the port of the
# proxy to clients of this listener, so that all their traffic uses the proxy.
add_links() {
    local link number=0 listeners= advertised= protocols=
    for link in $KAFKA_LINKS; do
        number=$((number + 1))
        listeners+=,LINK$number://127.0.0.1:${link%:*}
        advertised+=,LINK$number://127.0.0.1:${link#*:}
        protocols+=,LINK$number:PLAINTEXT
    done
    sed -i -e "s|@LISTENERS@|$listeners|" -e "s|@ADVERTISED@|$advertised|" -e "s|@PROTOCOLS@|$protocols|" "$1"
}

start_kafka() {
    local home=$STACK_DIR/kafka log
    log=$(log_file kafka)
    mkdir -p "$home"
    sed -e "s|@PORT@|$KAFKA_PORT|" -e "s|@CONTROLLER_PORT@|$CONTROLLER_PORT|" \
        -e "s|@DATA@|$home/data|" "$NATIVE/kafka/server.properties" >"$(kafka_mark)"
    add_links "$(kafka_mark)"
    if [[ -n ${ORDERMESH_KAFKA_SESSION_MS:-} ]]; then
        sed -i "s|^broker.session.timeout.ms=.*|broker.session.timeout.ms=$ORDERMESH_KAFKA_SESSION_MS|" "$(kafka_mark)"
    fi
    kafka_java
    if [[ ! -f $home/initialised ]]; then
        rm -rf "$home/data"
        "${JAVA_ARGUMENTS[@]}" -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format \
            -t "$(new_cluster_id)" -c "$(kafka_mark)" >>"$log" 2>&1 ||
            die "kafka could not format its data folder; its log: $log"
        touch "$home/initialised"
    fi
    launch kafka "${JAVA_ARGUMENTS[@]}" -Xms128m -Xmx512m -XX:+ExitOnOutOfMemoryError \
        kafka.Kafka "$(kafka_mark)"
    await_ready kafka probe_kafka
}

# 16 random bytes in base64url; the leading letter keeps it from looking like
# an option.
new_cluster_id() {
    printf 'o%s' "$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c2-22)"
}

# An open port is not enough: the node must list itself as a live broker. The
# response to a Metadata request (version 1, no topics) has their number.
probe_kafka() {
    local reply
    {
        exec 3<>"/dev/tcp/127.0.0.1/$KAFKA_PORT" || return 1
        #        size 18         key 3  ver. 1  correlation     client "up"  topics: none
        printf '\0\0\0\020\0\003\0\001\0\0\0\001\0\002up\0\0\0\0' >&3
        # size, correlation, number of brokers
        reply=$(timeout 1 head -c 12 <&3 | od -An -v -tx1 | tr -d ' \n')
        exec 3>&-
    } 2>/dev/null
    ((${#reply} == 24)) && [[ ${reply:16} != 00000000 ]]
}

stop_kafka() {
    end_process kafka "$(kafka_mark)" TERM
}

remove_kafka() {
    rm -rf "$STACK_DIR/kafka"
}
