# shellcheck shell=bash
# Fetches the dependencies of stack and build, once.

INSTALL_LOG=$CACHE/install.log

find_java() {
    JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
    have "$JAVA" ||
        die "java is missing; install it with: sudo apt-get install openjdk-$JAVA_MIN-jre-headless"
}

need_java() {
    local version
    find_java
    version=$("$JAVA" -version 2>&1 | sed -nE 's/.* version "(1\.)?([0-9]+).*/\2/p' | head -n 1)
    [[ $version =~ ^[0-9]+$ ]] && ((version >= JAVA_MIN)) ||
        die "java ${version:-of an unknown version} is too old; install it with: sudo apt-get install openjdk-$JAVA_MIN-jre-headless"
}

need_cargo() {
    have cargo || die "cargo is missing; install Rust with rustup, or put ~/.cargo/bin on the PATH"
}

# Debian packages the compiler without Google's protos, which other protos import.
protoc_knows_google() {
    protoc -I/dev --descriptor_set_out=/dev/null /dev/stdin \
        <<<'syntax = "proto3"; import "google/protobuf/descriptor.proto";' >/dev/null 2>&1
}

# Prints the missing Debian packages, one per line.
missing_packages() {
    have "${JAVA_HOME:+$JAVA_HOME/bin/}java" || echo "openjdk-$JAVA_MIN-jre-headless"
    have mvn || echo maven
    have curl || echo curl
    have make && have cc && have c++ || echo build-essential
    have pkg-config || echo pkg-config
    # For a dependency; ordermesh's own contracts do not need it.
    have protoc || echo protobuf-compiler
    protoc_knows_google || echo libprotobuf-dev
    [[ -e /usr/include/zlib.h ]] || echo zlib1g-dev
    [[ -x $POSTGRES_BIN/initdb ]] || echo "postgresql-$POSTGRES_MAJOR"
}

need_packages() {
    local packages root=()
    mapfile -t packages < <(missing_packages)
    ((${#packages[@]} > 0)) || return 0
    if ((EUID != 0)); then
        root=(sudo -n)
    fi
    if ! have apt-get || ! "${root[@]}" true 2>/dev/null; then
        die "$(list_and "${packages[@]}") missing; install with: sudo apt-get install ${packages[*]}"
    fi
    say "installing with apt: ${packages[*]}"
    {
        "${root[@]}" apt-get -q update &&
            "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get -q install -y --no-install-recommends "${packages[@]}"
    } >>"$INSTALL_LOG" 2>&1 </dev/null ||
        die "apt could not install ${packages[*]}; its log: $INSTALL_LOG"
    mapfile -t packages < <(missing_packages)
    ((${#packages[@]} == 0)) ||
        die "$(list_and "${packages[@]}") still missing after apt; its log: $INSTALL_LOG"
}

# list_and a b c: "a, b and c are"
list_and() {
    if (($# == 1)); then
        printf '%s is' "$1"
    else
        local all
        all=$(printf '%s, ' "${@:1:$#-1}")
        printf '%s and %s are' "${all%, }" "${!#}"
    fi
}

# fetch_part NAME VERSION GOAL: fetches into $CACHE/NAME. Writes the stamp last, so
# that an interrupted fetch is repeated.
fetch_part() {
    local name=$1 stamp goal=$3
    stamp="$2 $(cksum <"$NATIVE/maven/pom.xml")"
    if [[ -d $CACHE/$name && $(cat "$CACHE/$name.stamp" 2>/dev/null) == "$stamp" ]]; then
        return 0
    fi
    say "fetching $name $2"
    rm -rf "${CACHE:?}/$name" "$CACHE/$name.stamp"
    mvn -B -q -Dstyle.color=never -f "$NATIVE/maven/pom.xml" \
        "-Dkafka.version=$KAFKA_VERSION" "-Dscala.version=$SCALA_VERSION" \
        "-Dslf4j.version=$SLF4J_VERSION" "-Dapicurio.version=$APICURIO_VERSION" \
        "-Ddependency.plugin.version=$MAVEN_DEPENDENCY_PLUGIN_VERSION" \
        "-Doutput=$CACHE/$name" "dependency:$goal@$name" >>"$INSTALL_LOG" 2>&1 </dev/null ||
        die "Maven could not fetch $name $2; its log: $INSTALL_LOG"
    printf '%s\n' "$stamp" >"$CACHE/$name.stamp"
}

install_all() (
    make_dir "$CACHE"
    take_lock "$CACHE/lock"
    need_cargo
    need_packages
    need_java
    fetch_part kafka "$KAFKA_VERSION" copy-dependencies
    fetch_part registry "$APICURIO_VERSION" unpack
)

# For commands that start parts.
need_installed() {
    find_java
    [[ -f $CACHE/kafka.stamp && -f $CACHE/registry.stamp && -x $POSTGRES_BIN/initdb ]] ||
        die "the stack is not installed; install it with: compose/native/stack install"
}
