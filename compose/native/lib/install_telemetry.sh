# shellcheck shell=bash
# Fetches and builds the telemetry parts, once. All are optional: unavailable
# parts are named and left out.

telemetry_installed() {
    [[ -f $CACHE/$1.stamp ]]
}

install_telemetry() (
    local name
    make_dir "$CACHE"
    take_lock "$CACHE/lock"
    install_from_debian prometheus
    install_from_debian alertmanager
    install_from_debian node-exporter
    build_with_go jaeger "$JAEGER_VERSION" github.com/jaegertracing/jaeger/cmd/all-in-one \
        "github.com/jaegertracing/jaeger/pkg/version.latestVersion=v$JAEGER_VERSION"
    build_with_go collector "$COLLECTOR_VERSION" . "main.version=$COLLECTOR_VERSION"
)

debian_package() {
    case $1 in
        prometheus) printf prometheus ;;
        *) printf 'prometheus-%s' "$1" ;;
    esac
}

# install_from_debian NAME: unpacks the package into $CACHE/NAME without
# installing it, so that Debian starts no service and root is not needed.
install_from_debian() {
    local name=$1 package folder=$CACHE/$1
    ! telemetry_installed "$name" || return 0
    package=$(debian_package "$name")
    if ! have apt-get || ! have dpkg; then
        say "$name is left out: it comes from Debian's package $package, and there is no apt here"
        return
    fi
    say "fetching $name"
    rm -rf "$folder"
    mkdir -p "$folder"
    if ! unpack_package "$package" "$folder" >>"$INSTALL_LOG" 2>&1 </dev/null; then
        say "$name is left out: Debian's package $package cannot be had; the log: $INSTALL_LOG"
        return
    fi
    [[ $name != alertmanager ]] || find_own_templates "$folder/usr/bin/prometheus-alertmanager"
    touch "$CACHE/$name.stamp"
}

unpack_package() {
    local package=$1 folder=$2
    cd "$folder"
    if ! apt-get -q download "$package"; then
        # A new machine has no package lists.
        as_root apt-get -q update && apt-get -q download "$package" || return
    fi
    dpkg -x "$package"_*.deb . && rm "$package"_*.deb
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo -n "$@"
    fi
}

# Debian's build reads its templates below /usr/share and has no flag for another
# path. A relative path of the same length replaces it in the binary.
find_own_templates() {
    LC_ALL=C sed -i 's|/usr/share/prometheus/alertmanager|.//./share/prometheus/alertmanager|g' "$1"
}

# build_with_go NAME VERSION PACKAGE VARIABLE: builds a package of the module
# compose/native/go/NAME and sets VARIABLE in it.
build_with_go() {
    local name=$1 version=$2 package=$3 variable=$4 module=$NATIVE/go/$1 stamp
    stamp="$version $(cat "$module"/* | cksum)"
    [[ $(cat "$CACHE/$name.stamp" 2>/dev/null) != "$stamp" ]] || return 0
    if ! have go; then
        say "$name is left out: it is built with Go, which is missing; see https://go.dev/doc/install"
        return
    fi
    say "building $name $version (some minutes, once)"
    rm -f "$CACHE/$name.stamp"
    if ! (cd "$module" && go build -mod=readonly -trimpath -ldflags "-s -w -X $variable" \
        -o "$CACHE/$name/$name" "$package") >>"$INSTALL_LOG" 2>&1 </dev/null; then
        say "$name is left out: it could not be built; the log: $INSTALL_LOG"
        return
    fi
    printf '%s\n' "$stamp" >"$CACHE/$name.stamp"
}
