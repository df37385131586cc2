#!/usr/bin/env bash
# A session's network: what its policy names is reached, by proxy and without, and nothing else; every
# attempt is in the record. The servers are real ones, in a network namespace of this test's own whose
# addresses and resolver are its own too.
#
# Usage: egress.sh BUILD-DIR
# shellcheck disable=SC2016 # what is in single quotes is for the shell of the session
if [ "${KB_EGRESS_INSIDE:-}" != yes ] && [ "$(id -u)" -eq 0 ]; then
    export KB_EGRESS_INSIDE=yes
    exec unshare --net --mount bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip_all 'not root: it makes network namespaces'
for program in nft curl ip; do
    command -v $program >/dev/null || skip_all "$program is not there"
done

SERVERS=$TESTS/integration/egress_servers.py

start_servers() {
    ip link set lo up &&
        ip address add 203.0.113.10/32 dev lo && ip address add 10.77.0.10/32 dev lo &&
        ip address add 93.184.215.14/32 dev lo && ip address add 93.184.215.15/32 dev lo &&
        ip -6 address add 2606:4700::14/128 dev lo &&
        ip address add 169.254.169.254/32 dev lo || return 1
    echo 'nameserver 127.0.0.1' >"$WORK/resolv.conf"
    mount --bind "$WORK/resolv.conf" /etc/resolv.conf || return 1
    echo 'hosts: files dns' >"$WORK/nsswitch.conf"
    mount --bind "$WORK/nsswitch.conf" /etc/nsswitch.conf || return 1
    python3 "$SERVERS" "$WORK/servers" >"$WORK/servers.log" 2>&1 &
    servers=$!
    wait_until 30 test -e "$WORK/servers/ready"
}

policy() { # lines…
    { echo 'policy net version 1 extends shell {'; printf '    %s\n' "$@"; echo '}'; } >"$WS/net.policy"
}

# A session under that policy; $out and $status as usual.
netted() {
    session --policy "$WS/net.policy" -- sh -c "$1"
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

named_is_reached() {
    policy 'net connect tcp "ok.test:80"'
    netted 'curl -sS -m 20 http://ok.test/; curl -sS -m 20 --noproxy "*" http://ok.test/'
    expect_status 0
    expect_equal "$out" 'hello from ok.test
hello from ok.test' 'both ways'
    expect_record 'lane = net and event = connect and host = "ok.test" and port = 80 and decision = allowed'
    expect_record 'lane = net and event = request and host = "ok.test"'
    expect_record 'lane = net and event = resolve and host = "ok.test"'
    records 'lane = net and event = send and host = "ok.test"'
    [ "$(json 'sum(1 for l in L if l["bytes"] > 50 and l["result"] > 50)' <<<"$out")" = 2 ] ||
        fail 'the bytes of both connections are not recorded'
}

unnamed_is_refused() {
    policy 'net connect tcp "ok.test:80"'
    netted 'curl -sS -m 20 http://other.test/; curl -sS -m 20 --noproxy "*" http://other.test/; true'
    expect_out 'other.test:80: no rule of the policy names it'
    expect_out 'net connect tcp "other.test:80"'
    expect_record 'lane = net and event = connect and host = "other.test" and decision = denied'
    expect_record 'lane = net and event = resolve and host = "other.test" and decision = denied'
    # It was not even asked for.
    ! grep -q other.test "$WORK/servers/dns.log" || fail 'the name left the session'
}

loopback_by_name() {
    policy 'net connect tcp "127.0.0.1:8080"'
    netted 'curl -sS -m 20 http://127.0.0.1:8080/; curl -sS -m 20 -x "$http_proxy" --noproxy "" http://127.0.0.1:8080/
            curl -sS -m 20 http://127.0.0.1:8081/ || echo closed'
    expect_equal "$out" 'hello from 127.0.0.1:8080
hello from 127.0.0.1:8080
closed' "the host's loopback"
}

no_rules_no_network() {
    session -- sh -c 'cat /etc/resolv.conf; echo "proxy=${http_proxy:-}"; tail -n +3 /proc/net/route | wc -l'
    expect_out '# This session has no network.'
    expect_out 'proxy='
    expect_no_record 'lane = net'
}

if ! start_servers; then
    skip_all 'network namespaces with addresses of their own cannot be made here'
fi
tap 'a named server is reached, by proxy and without' named_is_reached
tap 'one that is not named is refused, and its name does not leave' unnamed_is_refused
tap "the host's loopback is reached where a rule names it" loopback_by_name
tap 'without a net rule there is no network' no_rules_no_network
kill "$servers" 2>/dev/null
wait "$servers" 2>/dev/null
umount /etc/resolv.conf /etc/nsswitch.conf
tap_end
