# shellcheck shell=bash
# A network of a test's own, with real servers in it: a network, mount and pid namespace whose loopback
# has addresses of the internet, whose resolver knows names under .test, and whose certificates are
# signed by an authority that only this world trusts. Everything ends with the namespace.
#
#   . "$(dirname "$0")/net_world.sh"     # before lib.sh: runs the test again inside
#   enter_world "$@"
#   . "$(dirname "$0")/lib.sh"
#
# Inside, $KB_WORLD is the servers' directory (see net_servers.py). It works for root and, where the
# kernel lets ordinary users make namespaces, for them; a test with --as-user is an ordinary user in a
# world that root made.

world_addresses() {
    local address
    ip link set lo up || return 1
    for address in 203.0.113.10 10.77.0.10 93.184.215.14 93.184.215.15 169.254.169.254; do
        ip address add $address/32 dev lo || return 1
    done
    ip -6 address add 2606:4700::14/128 dev lo 2>/dev/null || true
}

world_resolver() {
    echo 'nameserver 127.0.0.1' >"$KB_WORLD/resolv.conf"
    echo 'hosts: files dns' >"$KB_WORLD/nsswitch.conf"
    mount --bind "$KB_WORLD/resolv.conf" /etc/resolv.conf &&
        mount --bind "$KB_WORLD/nsswitch.conf" /etc/nsswitch.conf
}

# world_certificate NAME SIGNER DAYS [OTHER-NAME]: NAME.pem, key and chain.
world_certificate() {
    local dir=$KB_WORLD/tls name=$1 signer=$2 days=$3 other=${4:-$1}
    openssl req -quiet -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$other" \
        -keyout "$dir/$name.key" -out "$dir/$name.csr" 2>/dev/null ||
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$other" \
            -keyout "$dir/$name.key" -out "$dir/$name.csr" 2>/dev/null
    openssl x509 -req -in "$dir/$name.csr" -CA "$dir/$signer.crt" -CAkey "$dir/$signer.key" \
        -days "$days" -extfile <(echo "subjectAltName=DNS:$other") -out "$dir/$name.crt" 2>/dev/null
    cat "$dir/$name.crt" "$dir/$name.key" >"$dir/$name.pem"
}

world_authority() { # name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
        -keyout "$KB_WORLD/tls/$1.key" -out "$KB_WORLD/tls/$1.crt" 2>/dev/null
}

# The machine of this world trusts its authority; so does whoever reads SSL_CERT_FILE.
world_trust() {
    local system=/etc/ssl/certs/ca-certificates.crt
    cat "$KB_WORLD/tls/authority.crt" >"$KB_WORLD/trust.pem"
    [ ! -e $system ] || cat $system >>"$KB_WORLD/trust.pem"
    [ ! -e $system ] || mount --bind "$KB_WORLD/trust.pem" $system
    export SSL_CERT_FILE=$KB_WORLD/trust.pem
}

world_certificates() {
    local name
    mkdir "$KB_WORLD/tls"
    world_authority authority
    world_authority stranger
    for name in ok.test front.test api.test git.test packages.test other.test \
        ${KB_WORLD_NAMES:-}; do
        world_certificate "$name" authority 30
    done
    world_certificate wrong.test authority 30 other-name.test
    world_certificate expired.test authority 0
    world_certificate unknown.test stranger 30
    world_trust
}

world_servers() {
    python3 "$(dirname "${BASH_SOURCE[0]}")/net_servers.py" "$KB_WORLD" >"$KB_WORLD/log" 2>&1 &
    for _ in $(seq 300); do
        [ ! -e "$KB_WORLD/ready" ] || return 0
        sleep 0.1
    done
    return 1
}

# What a test puts there for the servers to serve, whoever it runs as.
world_places() {
    mkdir "$KB_WORLD/git" "$KB_WORLD/packages" && chmod 1777 "$KB_WORLD/git" "$KB_WORLD/packages"
}

# Runs as the namespace's root.
make_world() {
    world_addresses && world_resolver && world_certificates && world_places && chmod -R a+rX "$KB_WORLD" &&
        world_servers && chmod -R a+rX "$KB_WORLD"
}

world_skip() {
    echo "1..0 # SKIP $1"
    exit 0
}

# Inside: the world, then the test in it, as who started it.
run_in_world() {
    local status
    if ! make_world; then
        cat "$KB_WORLD/log" >&2 2>/dev/null
        world_skip 'network namespaces with addresses of their own cannot be made here'
    fi
    if [ -n "${KB_WORLD_UID:-}" ]; then
        unshare --user --map-user="$KB_WORLD_UID" --map-group="$KB_WORLD_GID" bash "$0" "$@"
    else
        bash "$0" "$@"
    fi
    status=$?
    umount /etc/resolv.conf /etc/nsswitch.conf /etc/ssl/certs/ca-certificates.crt 2>/dev/null
    exit $status
}

enter_world() {
    local program how=() status
    [ "${KB_WORLD_INSIDE:-}" != yes ] || return 0
    if [ -n "${KB_WORLD:-}" ]; then
        export KB_WORLD_INSIDE=yes
        run_in_world "$@"
    fi
    for program in nft curl ip openssl unshare python3; do
        command -v $program >/dev/null || world_skip "$program is not there"
    done
    KB_WORLD=$(mktemp -d "${TMPDIR:-/tmp}/kbw.XXXXXX")
    chmod 755 "$KB_WORLD"
    export KB_WORLD
    if [ "$(id -u)" -ne 0 ]; then
        how=(--user --map-root-user)
        KB_WORLD_UID=$(id -u) KB_WORLD_GID=$(id -g)
        export KB_WORLD_UID KB_WORLD_GID
        unshare "${how[@]}" --net true 2>/dev/null ||
            world_skip 'this kernel does not let ordinary users make network namespaces'
    fi
    unshare "${how[@]}" --net --mount --pid --fork --kill-child --mount-proc bash "$0" "$@"
    status=$?
    rm -rf "$KB_WORLD"
    exit $status
}

# ---- What its tests say of sessions: with lib.sh ----

# The policy of the session to come: $WS/net.policy.
policy() { # lines…
    { echo 'policy net version 1 extends shell {'; printf '    %s\n' "$@"; echo '}'; } >"$WS/net.policy"
}

# The records of the last session that match, as JSON lines in $out.
records() { # query
    run kbsup audit query last "$1" --json
    expect_status 0
}

expect_record() { # query
    records "$1"
    [ -n "$out" ] || fail "no record: $1"
}

expect_no_record() { # query
    records "$1"
    [ -z "$out" ] || fail "a record: $1"
}
