#!/usr/bin/env bash
# A session's network: what its policy names is reached, by proxy and without, and nothing else; every
# attempt is in the record. The servers are real ones; see net_world.sh.
#
# Usage: egress.sh BUILD-DIR [--as-user]
# shellcheck disable=SC2016 # what is in single quotes is for the shell of the session
. "$(dirname "$0")/net_world.sh"
enter_world "$@"
. "$(dirname "$0")/lib.sh"

# A session under the policy; $out and $status as usual.
netted() {
    session --policy "$WS/net.policy" -- sh -c "$1"
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
    ! grep -q other.test "$KB_WORLD/dns.log" || fail 'the name left the session'
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

by_port() {
    policy 'net connect tcp "ok.test:80"'
    netted 'curl -sS -m 20 --noproxy "*" http://ok.test:9999/ || echo cut; curl -sS -m 20 http://ok.test:9999/'
    expect_out cut
    expect_out 'ok.test:9999: no rule of the policy names it'
    expect_no_record 'lane = net and event = connect and port = 9999 and decision = allowed'
}

by_address() {
    policy 'net connect tcp "ok.test:80"'
    netted 'for to in 93.184.215.14 10.77.0.10 169.254.169.254 [2606:4700::14] 198.18.0.9; do
                curl -sS -m 20 --noproxy "*" "http://$to/" 2>/dev/null && echo "reached $to"
                curl -sS -m 20 -H "Host: ok.test" --noproxy "*" "http://$to/" 2>/dev/null && echo "reached $to"
            done; echo end'
    expect_equal "$out" end 'bare addresses'
    expect_record 'lane = net and event = connect and ip = "169.254.169.254" and decision = denied'
    expect_no_record 'lane = net and event = connect and decision = allowed'
}

private_addresses() {
    policy 'net connect tcp "private.test:80" "loop.test:8080" "meta.test:80" "mixed.test:80"'
    netted 'for name in private.test:80 loop.test:8080 meta.test:80; do
                curl -sS -m 20 --noproxy "*" "http://$name/" 2>/dev/null && echo "reached $name"
            done; curl -sS -m 20 --noproxy "*" http://mixed.test/'
    expect_equal "$out" 'hello from mixed.test' 'names with private addresses'
    expect_record 'lane = net and host = "private.test" and decision = denied and ip = "10.77.0.10"'
    expect_record 'lane = net and host = "loop.test" and decision = denied'
    expect_record 'lane = net and host = "meta.test" and decision = denied'
    policy 'net connect tcp "private.test:80" "10.77.0.0/16:80"'
    netted 'curl -sS -m 20 --noproxy "*" http://private.test/'
    expect_equal "$out" 'hello from private.test' 'a private address that a rule names'
}

host_agrees() {
    policy 'net connect tcp "ok.test:80"'
    netted 'curl -fsS -m 20 --noproxy "*" -H "Host: front.test" http://ok.test/ 2>/dev/null && echo fronted
            curl -fsS -m 20 -H "Host: front.test" http://ok.test/ 2>/dev/null && echo fronted
            printf "GET / HTTP/1.1\r\nHost: ok.test\r\n\r\nGET / HTTP/1.1\r\nHost: front.test\r\n\r\n" |
                curl -sS -m 20 --noproxy "*" telnet://ok.test:80 2>/dev/null; echo; echo end'
    case $out in *fronted* | *'from front'*) fail 'another host was reached' ;; esac
    expect_out end
    expect_record 'lane = net and event = request and host = "ok.test" and decision = denied'
    ! grep -q 'host=front.test' "$KB_WORLD/http.log" || fail 'the request went out'
}

server_name_agrees() {
    policy 'net connect tcp "ok.test:25"'
    netted 'curl -skS -m 20 --noproxy "*" --connect-to front.test:443:ok.test:25 https://front.test/ 2>/dev/null; echo end'
    expect_record 'lane = net and event = request and host = "ok.test" and port = 25 and decision = denied'
}

only_some_requests() {
    policy 'net connect tcp "ok.test:80" http get "/api/**"'
    netted 'curl -sS -m 20 http://ok.test/api/x; curl -sS -m 20 --noproxy "*" http://ok.test/other
            curl -sS -m 20 --noproxy "*" -d body http://ok.test/api/x'
    expect_equal "$out" 'hello from ok.test
kbsup: ok.test:80: the rule does not allow GET /other
kbsup: ok.test:80: the rule does not allow POST /api/x' 'requests'
    expect_record 'lane = net and event = request and host = "ok.test" and decision = denied'
    ! grep -q 'GET /other' "$KB_WORLD/http.log" || fail 'the request went out'
}

other_proxies() {
    policy 'net connect tcp "ok.test:80" "six.test:80"'
    netted 'curl -sS -m 20 -p http://ok.test/; curl -sS -m 20 -x socks5h://198.18.0.1:3128 http://ok.test/
            curl -sS -m 20 -x socks5h://198.18.0.1:3128 http://other.test/ 2>/dev/null && echo reached
            curl -sS -m 20 -p http://other.test/ 2>/dev/null && echo reached
            curl -6 -sS -m 20 --noproxy "*" http://ok.test/; curl -sS -m 20 --noproxy "*" http://six.test/
            curl -sS -m 20 -x http://198.18.0.1:3128 -p http://198.18.0.1:3128/ 2>/dev/null && echo reached; echo end'
    expect_equal "$out" 'hello from ok.test
hello from ok.test
hello from ok.test
hello from six.test
end' 'CONNECT, SOCKS 5 and IPv6'
}

no_datagrams() {
    policy 'net connect tcp "ok.test:80"' 'net connect "93.184.215.14:5000"'
    netted 'bash -c "echo x >/dev/udp/93.184.215.14/5000"; bash -c "echo x >/dev/udp/8.8.8.8/123"; echo end'
    expect_out end
    expect_record 'lane = net and ip = "8.8.8.8" and port = 123 and decision = denied'
    expect_record 'lane = net and ip = "93.184.215.14" and port = 5000 and decision = denied'
    [ ! -s "$KB_WORLD/udp.log" ] || fail 'a datagram went out'
}

bytes_are_limited() {
    policy 'net connect tcp "ok.test:80"' 'limit egress 100k'
    netted 'head -c 300000 /dev/zero >big; curl -sS -m 20 --noproxy "*" -T big http://ok.test/ || echo cut
            curl -sS -m 20 --noproxy "*" http://ok.test/ || echo cut'
    expect_equal "$out" 'cut
cut' 'past the limit'
    expect_record 'lane = net and event = limit'
}

whole_and_fast_enough() {
    policy 'net connect tcp "ok.test:80"'
    netted 'curl -sS -m 50 --noproxy "*" http://ok.test/big/20000000 | wc -c
            head -c 5000000 /dev/zero >big; curl -sS -m 50 --noproxy "*" -T big http://ok.test/up'
    expect_equal "$out" '20000000
got 5000000' 'bytes'
}

# probe NAME…: tries them in a session that may reach ok.test; $out has a line for each.
probe() {
    cp "$TESTS/integration/net_probe.py" "$WS/"
    policy 'net connect tcp "ok.test:80" "ok.test:443" "ok.test:25"'
    netted "/usr/bin/python3 net_probe.py $*"
    expect_status 0
    case $err in *Traceback*) fail 'a probe broke' ;; esac
}

expect_probe() { # name, what came of it
    grep -qxF -- "$1: $2" <<<"$out" || fail "$(grep "^$1: " <<<"$out"), expected: $2"
}

no_way_around() {
    local name
    probe raw-tcp raw-tcp6 link-local6 udp udp6 icmp sctp vsock packet any-address dot doh proxy-itself tunnel-proxy
    for name in raw-tcp raw-tcp6 link-local6 dot doh; do
        expect_probe "$name" '[reset]'
    done
    expect_probe udp 'Operation not permitted'
    expect_probe icmp 'Operation not permitted'
    expect_probe any-address 'Connection refused'
    expect_probe proxy-itself 'HTTP/1.1 403 Forbidden'
    expect_probe tunnel-proxy 'HTTP/1.1 403 Forbidden'
    case $out in *connected* | *answered* | *'socket object'* | *shaken*) fail 'a way out' ;; esac
    for name in 1.1.1.1:443 2606:4700::1111:443 fe80::1:80 1.1.1.1:853 1.1.1.1:80 198.18.0.1:3128; do
        expect_record "lane = net and event = connect and ip = \"${name%:*}\" and port = ${name##*:} and decision = denied"
    done
    expect_record 'lane = net and ip = "1.1.1.1" and port = 123 and decision = denied'
}

names_do_not_leave() {
    probe dns-tcp dns-tcp-unnamed dns-udp-unnamed dns-txt dns-any
    expect_probe dns-tcp 'code 0, 1 answers'
    expect_probe dns-tcp-unnamed 'code 3, 0 answers'
    expect_probe dns-udp-unnamed 'code 3, 0 answers'
    expect_probe dns-txt 'code 0, 0 answers'
    expect_probe dns-any 'code 0, 0 answers'
    expect_record 'lane = net and event = resolve and host = "secret-data.other.test" and decision = denied'
    ! grep -qE 'secret-data|ok.test (16|255)' "$KB_WORLD/dns.log" || fail 'a question left the session'
}

requests_agree() {
    local name
    probe host-plain host-blank-lines host-lower-case host-long-method host-tabs host-bare-lf host-bare-cr \
        host-absolute host-twice host-folded host-space host-none host-in-pieces host-http2 host-second \
        tunnel-server smuggle-both-lengths smuggle-two-lengths smuggle-encoding smuggle-chunk smuggle-h2c late-upgrade
    expect_probe host-plain 'HTTP/1.1 403 Forbidden'
    expect_probe host-absolute 'HTTP/1.1 403 Forbidden'
    expect_probe tunnel-server 'HTTP/1.1 403 Forbidden'
    expect_probe late-upgrade 'no front'
    case $out in *'from front'*) fail 'another host answered' ;; esac
    ! grep -q 'host=front.test' "$KB_WORLD/http.log" || fail 'a request for another host went out'
    ! grep -qiE 'front.test|PRI ' "$KB_WORLD/headers.log" || fail 'part of one went out'
    records 'lane = net and event = request and decision = denied'
    [ "$(grep -c . <<<"$out")" -ge 18 ] || fail "only $(grep -c . <<<"$out") refusals are recorded"
}

handshakes_agree() {
    probe sni-other sni-none sni-right upgrade
    expect_probe sni-right shaken
    case $out in *'sni-other: shaken'* | *'sni-none: shaken'*) fail 'a handshake for another server' ;; esac
    expect_probe upgrade 'HTTP/1.1 101 Switching Protocols, echo hello'
    records 'lane = net and event = request and port = 443 and decision = denied'
    expect_equal "$(grep -c . <<<"$out")" 2 'refused handshakes'
}

ends_are_kept() {
    probe half-close text-in-pieces
    expect_probe half-close '220 ready, 300000 back'
    expect_probe text-in-pieces 'HELLO WORLD'
}

many_at_once() {
    probe many
    expect_probe many '700 served, 0 failed, 0 open'
    expect_record 'lane = net and event = limit'
    records 'lane = net and event = connect and host = "ok.test" and decision = allowed'
    expect_equal "$(grep -c . <<<"$out")" 700 connections
}

# Kilobytes that the supervisor and all below it have.
memory_of_all() {
    local pid
    pid=$(supervisor_pid)
    ps -e -o pid=,ppid=,rss= | awk -v top="$pid" '
        { parent[$1] = $2; rss[$1] = $3 }
        END {
            for (p in rss) {
                for (q = p; q in parent && q != top; q = parent[q]);
                if (q == top) sum += rss[p]
            }
            print sum
        }'
}

slow_readers_hold_up() {
    local before after
    cp "$TESTS/integration/net_probe.py" "$WS/"
    rm -f "$WS"/slow-*
    policy 'net connect tcp "ok.test:80"'
    kbsup run --workspace "$WS" --policy "$WS/net.policy" -- /usr/bin/python3 net_probe.py slow \
        >"$WORK/slow" 2>"$WORK/stderr" </dev/null &
    local session=$!
    wait_until 20 test -e "$WS/slow-started"
    before=$(memory_of_all)
    sleep 2
    after=$(memory_of_all)
    touch "$WS/slow-measured"
    wait "$session" || fail 'the session failed'
    expect_equal "$(cat "$WORK/slow")" 'slow: all' 'what came'
    [ $((after - before)) -lt 20000 ] || fail "$((after - before)) KiB piled up"
}

broker_is_killed() {
    local broker
    policy 'net connect tcp "ok.test:80"'
    kbsup run --workspace "$WS" --policy "$WS/net.policy" --name orphaned --detach -- \
        sh -c 'curl -sS -m 50 --limit-rate 1k --noproxy "*" http://ok.test/big/1000000 >/dev/null; sleep 60' \
        >/dev/null 2>"$WORK/stderr" || fail 'no session'
    sleep 0.5
    broker=$(kbsup status --json | json '[r["pid"] for r in d["roles"] if r.get("role", r.get("name")) == "broker"][0]')
    kill -KILL "$broker"
    wait_until 20 session_is_over orphaned || fail 'the session runs on without its broker'
    run kbsup audit verify orphaned
    expect_status 3
    records 'event = end'
    expect_out broker
}

session_is_over() {
    ! kbsup ps --json | grep -q "\"$1\""
}

packages_install() {
    policy 'net connect tcp "packages.test:80" "packages.test:443" http get "/packages/**"'
    make_packages || fail 'no packages'
    if /usr/bin/python3 -m pip --version >/dev/null 2>&1; then
        netted '/usr/bin/python3 -m pip install -q --no-cache-dir --disable-pip-version-check --target lib \
                    --index-url http://packages.test/packages/simple/ --trusted-host packages.test kbtoy 2>&1
                PYTHONPATH=lib /usr/bin/python3 -c "import kbtoy; print(kbtoy.word)"
                rm -rf lib; env -u http_proxy -u HTTP_PROXY -u https_proxy -u HTTPS_PROXY /usr/bin/python3 -m pip install -q \
                    --no-cache-dir --disable-pip-version-check --target lib --index-url https://packages.test/packages/simple/ kbtoy 2>&1
                PYTHONPATH=lib /usr/bin/python3 -c "import kbtoy; print(kbtoy.word)"'
        expect_equal "$out" "it works
it works" pip
    fi
    if command -v npm >/dev/null; then
        netted 'mkdir -p n && cd n && echo "{}" >package.json &&
                npm install --silent --no-audit --no-fund --registry http://packages.test/packages/npm/ kbtoy >/dev/null 2>npm.err || cat npm.err
                node -e "console.log(require(\"kbtoy\"))"'
        expect_equal "$out" 'it works' npm
    fi
}

make_packages() {
    /usr/bin/python3 "$TESTS/integration/net_packages.py" "$KB_WORLD/packages"
}

tap 'a named server is reached, by proxy and without' named_is_reached
tap 'one that is not named is refused, and its name does not leave' unnamed_is_refused
tap "the host's loopback is reached where a rule names it" loopback_by_name
tap 'without a net rule there is no network' no_rules_no_network
tap 'a rule is for its port' by_port
tap 'a bare address is no way around a name' by_address
tap 'private addresses, loopback and metadata need a rule of their own' private_addresses
tap "every request's Host agrees with the name" host_agrees
tap 'so does the server name of TLS' server_name_agrees
tap 'a rule may allow certain requests only' only_some_requests
tap 'CONNECT, SOCKS 5 and IPv6 are the same to the policy' other_proxies
tap 'nothing but TCP leaves, and the try is recorded' no_datagrams
tap 'the limit of bytes sent holds' bytes_are_limited
tap 'large transfers arrive whole' whole_and_fast_enough
tap 'no protocol, address or proxy is a way around' no_way_around
tap 'names that are not allowed do not leave, in any form' names_do_not_leave
tap 'no spelling of a request is for another host' requests_agree
tap 'handshakes name the server, and other protocols may follow' handshakes_agree
tap 'half-closed connections and slow protocols of text work' ends_are_kept
tap 'more connections than there is room for wait their turn' many_at_once
tap 'a slow reader holds its server up, and piles up nothing' slow_readers_hold_up
tap 'without its broker a session ends, and its record says so' broker_is_killed
tap 'pip and npm install from an index that a rule names' packages_install
tap_end
