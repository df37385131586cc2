#!/usr/bin/env bash
# Secrets: the session has a placeholder; the broker puts the value into requests to the endpoints the
# policy names and to no other; it is nowhere else. The servers are real ones; see net_world.sh.
#
# Usage: secrets.sh BUILD-DIR [--as-user]
# shellcheck disable=SC2016 # what is in single quotes is for the shell of the session
. "$(dirname "$0")/net_world.sh"
enter_world "$@"
. "$(dirname "$0")/lib.sh"

# Made at random, so that it is nowhere by chance; never an argument of a command.
CANARY_FILE=$WORK/canary
(
    umask 077
    printf 'Canary%s' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >"$CANARY_FILE"
)
CANARY=$(cat "$CANARY_FILE")

netted() { # script, words for run…
    local script=$1
    shift
    session --policy "$WS/net.policy" "$@" -- sh -c "$script"
    case $out$err in *"$CANARY"*) fail 'the value came into the session' ;; esac
}

# What the server saw of the last request for this path.
server_saw() { # path, text
    grep -F " $1 " "$KB_WORLD/headers.log" | tail -n 1 | grep -qF -- "$2" ||
        fail "the server did not see it: $(grep -F " $1 " "$KB_WORLD/headers.log" | tail -n 1 | sed "s/$CANARY/CANARY/g")"
}

server_saw_not() { # path, text
    ! grep -F " $1 " "$KB_WORLD/headers.log" | tail -n 1 | grep -qF -- "$2" ||
        fail 'the server saw it'
}

base_url() {
    policy 'net connect tcp "api.test:443"' \
        "secret API_KEY from file \"$CANARY_FILE\" for \"api.test:443\" as header \"X-Api-Key\" url API_URL \"/v1\""
    netted 'echo "$API_KEY $API_URL"; curl -fsS -m 20 "$API_URL/base"; curl -fsS -m 20 -H "x-api-key: mine" "$API_URL/other"
            curl -fsS -m 20 -x "$http_proxy" --noproxy "" "$API_URL/proxied"'
    expect_status 0
    expect_equal "$out" 'kbsup-secret-API_KEY http://api.test:443/v1
hello from api.test
hello from api.test
hello from api.test' 'plain HTTP, said in TLS'
    server_saw /v1/base "X-Api-Key: $CANARY"
    server_saw /v1/other "X-Api-Key: $CANARY"
    server_saw_not /v1/other mine
    server_saw /v1/proxied "X-Api-Key: $CANARY"
    grep -q '/v1/base host=api.test tls' "$KB_WORLD/http.log" || fail 'it was not said in TLS'
    expect_record 'lane = net and event = request and host = "api.test" and secret = "API_KEY"'
}

intercepted() {
    policy 'net connect tcp "api.test:443" "ok.test:443"' \
        "secret TOKEN from file \"$CANARY_FILE\" for \"api.test:443\" as bearer intercept"
    netted 'curl -fsS -m 20 https://api.test/opened; curl -fsS -m 20 --noproxy "*" https://api.test/direct
            curl -fsS -m 20 -H "Authorization: Bearer mine" https://api.test/replaced
            curl -fsS -m 20 https://ok.test/closed
            echo | openssl s_client -connect ok.test:443 -servername ok.test 2>/dev/null | grep -c "CN = authority"
            echo | openssl s_client -connect api.test:443 -servername api.test 2>/dev/null | grep -c "kbsup session"'
    expect_status 0
    expect_equal "$(grep -v '^[0-9]' <<<"$out")" 'hello from api.test
hello from api.test
hello from api.test
hello from ok.test' 'TLS, opened and not'
    server_saw /opened "Authorization: Bearer $CANARY"
    server_saw /direct "Authorization: Bearer $CANARY"
    server_saw /replaced "Authorization: Bearer $CANARY"
    server_saw_not /replaced 'Bearer mine'
    server_saw_not /closed "$CANARY"
    expect_equal "$(grep '^[0-9]' <<<"$out" | grep -c '^0$')" 0 'certificates'
    expect_record 'lane = net and event = request and host = "api.test" and secret = "TOKEN"'
}

many_clients() {
    policy 'net connect tcp "api.test:443"' \
        "secret TOKEN from file \"$CANARY_FILE\" for \"api.test:443\" as bearer intercept"
    cat >"$WS/python.py" <<'PY'
import urllib.request
print(urllib.request.urlopen("https://api.test/python", timeout=20).read().decode().strip())
PY
    cat >"$WS/node.js" <<'JS'
require("https").get("https://api.test/node", (r) => r.on("data", (d) => process.stdout.write(d)))
    .on("error", (e) => console.log(e.message));
JS
    netted '/usr/bin/python3 python.py; if command -v node >/dev/null; then node node.js; fi
            if command -v wget >/dev/null; then wget -q -O - https://api.test/wget; fi'
    expect_status 0
    server_saw /python "Authorization: Bearer $CANARY"
    ! command -v node >/dev/null || server_saw /node "Authorization: Bearer $CANARY"
    ! command -v wget >/dev/null || server_saw /wget "Authorization: Bearer $CANARY"
}

placeholders() {
    policy 'net connect tcp "api.test:443"' \
        "secret KEY from file \"$CANARY_FILE\" for \"api.test:443\" as placeholder url URL intercept" \
        "secret KEY_LONG from file \"$CANARY_FILE\" for \"api.test:443\" as placeholder placeholder \"kbsup-secret-KEY-2\""
    netted 'curl -fsS -m 20 -H "X-Mine: a $KEY b" "$URL/value"; curl -fsS -m 20 "$URL/query?key=$KEY"
            curl -fsS -m 20 -u "me:$KEY" "$URL/basic"; curl -fsS -m 20 "$URL/none"
            curl -fsS -m 20 -H "X-Mine: $KEY_LONG." https://api.test/longer'
    expect_status 0
    server_saw /value "X-Mine: a $CANARY b"
    server_saw "/query?key=$CANARY" 'Host: api.test'
    server_saw /basic "Authorization: Basic $(printf 'me:%s' "$CANARY" | base64 -w 0)"
    server_saw_not /none "$CANARY"
    server_saw /longer "X-Mine: $CANARY."
    records 'lane = net and event = request and host = "api.test"'
    case $out in *"$CANARY"*) fail 'the value is in a record' ;; esac
}

nowhere_else() {
    policy 'net connect tcp "api.test:443" "ok.test:80" "ok.test:443" "api.test:8443"' \
        "secret KEY from file \"$CANARY_FILE\" for \"api.test:443\" as bearer url URL intercept"
    netted 'curl -sS -m 20 -H "X-Mine: $KEY" http://ok.test/foreign; curl -fsS -m 20 http://ok.test/plain
            curl -fsSk -m 20 https://api.test:8443/port; curl -sS -m 20 -X TRACE "$URL/trace"
            curl -sS -m 20 --noproxy "*" -H "Host: ok.test" "$URL/host"'
    expect_out 'its request carries the placeholder of the secret KEY, which is not for this server'
    expect_out 'TRACE would return the secret that is put in'
    expect_out 'its request is for another host, ok.test'
    server_saw_not /plain "$CANARY"
    server_saw_not /port "$CANARY"
    ! grep -qE '/foreign|/trace|/host ' "$KB_WORLD/http.log" || fail 'a refused request went out'
    expect_record 'lane = net and event = request and host = "ok.test" and decision = denied'
}

servers_are_verified() {
    local name
    policy 'net connect tcp "wrong.test:443" "expired.test:443" "unknown.test:443"' \
        "secret KEY from file \"$CANARY_FILE\" for \"wrong.test:443\" \"expired.test:443\" \"unknown.test:443\" as bearer intercept"
    netted 'for name in wrong expired unknown; do
                curl -sS -m 20 "http://$name.test:443/$name"; curl -sSk -m 20 "https://$name.test/$name" 2>/dev/null && echo reached
            done; true'
    expect_out 'wrong.test:443: its certificate is not accepted: hostname mismatch'
    expect_out 'expired.test:443: its certificate is not accepted: certificate has expired'
    expect_out 'unknown.test:443: its certificate is not accepted:'
    case $out in *reached*) fail 'a server that is not who it should be was reached' ;; esac
    for name in wrong expired unknown; do
        ! grep -q "/$name " "$KB_WORLD/http.log" || fail "a request went to $name"
        expect_record "lane = net and event = connect and host = \"$name.test\" and outcome = failed"
    done
}

not_returned() {
    policy 'net connect tcp "api.test:443"' \
        "secret KEY from file \"$CANARY_FILE\" for \"api.test:443\" as basic \"me\" url URL intercept"
    netted 'curl -fsS -m 20 --compressed "$URL/reflect"; curl -fsS -m 30 "$URL/dribble"
            curl -fsS -m 20 https://api.test/reflect; curl -fsS -m 20 -H "X: $KEY" https://api.test/reflect'
    expect_status 0
    expect_out 'Authorization: Basic ****'
    expect_out 'X: ****'
    expect_out 'Accept-Encoding: identity'
    case $out in *"$(printf 'me:%s' "$CANARY" | base64 -w 0)"*) fail 'it came back in base64' ;; esac
}

from_everywhere() {
    export KB_TEST_KEY=$CANARY
    policy 'net connect tcp "api.test:443"' \
        'secret A from env KB_TEST_KEY for "api.test:443" as header "x-a" url URL' \
        "secret B from command \"cat $CANARY_FILE\" for \"api.test:443\" as header \"x-b\"" \
        'secret C from env KB_NOT_THERE for "api.test:443" as header "x-c" if-available'
    netted 'curl -fsS -m 20 "$URL/sources"; echo "$A $B [${C-}]"'
    unset KB_TEST_KEY
    expect_out 'kbsup-secret-A kbsup-secret-B []'
    server_saw /sources "x-a: $CANARY"
    server_saw /sources "x-b: $CANARY"
    server_saw_not /sources x-c
}

not_to_be_had() {
    policy 'net connect tcp "api.test:443"' 'secret A from env KB_NOT_THERE for "api.test:443" as bearer'
    netted true
    expect_status 1
    expect_one_error
    expect_err 'the secret A: the variable KB_NOT_THERE is not set'
    policy 'net connect tcp "api.test:443"' 'secret A from file "/nowhere/x" for "api.test:443" as bearer'
    netted true
    expect_err 'the secret A: the file /nowhere/x is not there'
    policy 'net connect tcp "api.test:443"' 'secret A from command "exit 3" for "api.test:443" as bearer'
    netted true
    expect_err 'the secret A: its command failed (exit 3)'
    printf 'a\nb' >"$WORK/two-lines"
    policy 'net connect tcp "api.test:443"' "secret A from file \"$WORK/two-lines\" for \"api.test:443\" as bearer"
    netted true
    expect_err 'control character'
    policy 'net connect tcp "api.test:443"' 'secret HOME from env for "api.test:443" as bearer'
    netted true --env HOME
    expect_status 2
    expect_err 'it is a secret of the policy'
}

keyring() {
    policy 'net connect tcp "api.test:443"' \
        'secret A from keyring "service=kbsup-test" for "api.test:443" as header "x-a" url URL'
    run env PATH="$WORK/none" "$BIN/kbsup" run --workspace "$WS" --policy "$WS/net.policy" -- /bin/true
    expect_err 'there is no secret-tool'
    command -v secret-tool >/dev/null || skip 'there is no secret-tool to ask'
    command -v gnome-keyring-daemon >/dev/null || skip 'there is no keyring'
    command -v dbus-run-session >/dev/null || skip 'there is no bus for a keyring'
    cat >"$WORK/keyring.sh" <<'KEYRING'
printf '\n' | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
secret-tool store --label=test service kbsup-test <"$1" || exit 9
shift
exec "$@"
KEYRING
    status=0
    dbus-run-session -- bash "$WORK/keyring.sh" "$CANARY_FILE" "$BIN/kbsup" run --workspace "$WS" \
        --policy "$WS/net.policy" -- sh -c 'curl -fsS -m 20 "$URL/keyring"' >"$WORK/stdout" 2>"$WORK/stderr" ||
        status=$?
    [ "$status" -ne 9 ] || skip 'no keyring can be unlocked here'
    expect_status 0
    server_saw /keyring "x-a: $CANARY"
}

requests_in_tls() {
    policy 'net connect tcp "api.test:443" http get "/allowed/**"'
    netted 'curl -fsS -m 20 https://api.test/allowed/x; curl -sS -m 20 https://api.test/denied
            curl -sS -m 20 -d x https://api.test/allowed/x; curl -sSk -m 20 --http0.9 https://api.test/allowed/../denied --path-as-is'
    expect_out 'hello from api.test'
    expect_out 'the rule does not allow GET /denied'
    expect_out 'the rule does not allow POST /allowed/x'
    ! grep -q 'GET /denied' "$KB_WORLD/http.log" || fail 'the request went out'
    expect_record 'lane = net and event = request and host = "api.test" and decision = denied'
}

git_with_token() {
    command -v git >/dev/null || skip 'there is no git'
    install -m 644 "$CANARY_FILE" "$KB_WORLD/git/token"
    policy 'net connect tcp "git.test:443"' \
        "secret GIT_TOKEN from file \"$CANARY_FILE\" for \"git.test:443\" as basic \"x-access-token\" intercept"
    git_world || fail 'no repository'
    netted 'set -e; export GIT_TERMINAL_PROMPT=0; git config --global user.email a@b; git config --global user.name a
            git clone -q https://git.test/git/project.git clone; cd clone; cat file
            echo more >>file; git commit -qam change; git push -q origin HEAD; git ls-remote -q origin | wc -l
            ! grep -r "$(cat /proc/sys/kernel/hostname)" .git/config'
    expect_status 0
    expect_out 'the first line'
    [ "$(git -c safe.directory='*' -C "$KB_WORLD/git/project.git" log --oneline | wc -l)" = 2 ] || fail 'nothing was pushed'
}

git_world() {
    local dir=$KB_WORLD/git/project.git
    git init -q --bare -b main "$dir" && git -C "$dir" config http.receivepack true &&
        git init -q -b main "$WORK/seed" && echo 'the first line' >"$WORK/seed/file" &&
        git -C "$WORK/seed" add file &&
        git -C "$WORK/seed" -c user.email=a@b -c user.name=a commit -qm first &&
        git -C "$WORK/seed" push -q "$dir" main
}

# Everything there is, while a session with the secret runs and after it.
is_nowhere() {
    local main broker client found
    ulimit -c unlimited 2>/dev/null || true
    policy 'net connect tcp "api.test:443"' \
        "secret KEY from file \"$CANARY_FILE\" for \"api.test:443\" as bearer url URL intercept" \
        'secret OTHER from env KB_TEST_KEY for "api.test:443" as header "x-other"'
    KB_TEST_KEY=$CANARY "$BIN/kbsup" run --workspace "$WS" --policy "$WS/net.policy" --name hunted -- \
        sh -c 'curl -fsS -m 20 "$URL/hunted" >done; curl -sS -m 20 https://api.test/reflect >>done; env >>done; cat >>done; sleep 60' \
        >/dev/null 2>"$WORK/stderr" </dev/null &
    client=$!
    wait_until 20 grep -qs 'hello from' "$WS/done"
    wait_until 20 grep -qs KBSUP_SESSION "$WS/done"
    server_saw /hunted "Authorization: Bearer $CANARY"
    main=$(supervisor_pid)
    broker=$(kbsup status --json | json '[r["pid"] for r in d["roles"] if r.get("role", r.get("name")) == "broker"][0]')
    # The broker has it: what looks for it finds it, where it may look. An ordinary user may not.
    if [ "$(id -u)" -eq 0 ] && [ -z "${KB_WORLD_UID:-}" ]; then
        ! python3 "$TESTS/integration/canary.py" "$CANARY_FILE" --pid "$broker" >/dev/null ||
            fail 'the search finds nothing where there is something'
    else
        ! cat "/proc/$broker/environ" >/dev/null 2>&1 || fail 'the broker can be looked into'
    fi
    expect_equal "$(grep 'core file size' "/proc/$broker/limits" | tr -s ' ' | cut -d' ' -f5)" 0 'core file size'
    found=$(python3 "$TESTS/integration/canary.py" "$CANARY_FILE" --not-pid "$broker" --pid "$main" --pid "$client" 2>"$WORK/skipped") ||
        fail "it is in a process: $found"
    kill -ABRT "$broker"
    wait_until 20 not alive "$broker"
    wait "$client" || true
    stop_supervisor
    found=$(python3 "$TESTS/integration/canary.py" "$CANARY_FILE" --tree "$XDG_STATE_HOME" \
        --tree "$XDG_RUNTIME_DIR" --tree "$WS" --tree "$TMPDIR" --tree "$HOME" --tree "$XDG_CONFIG_HOME") ||
        fail "it is in a file: $found"
}

# A supervisor started by hand has what its shell has, and forgets it.
foreground_forgets() {
    local main found
    stop_supervisor
    KB_TEST_KEY=$CANARY "$BIN/kbsupd" --foreground 2>/dev/null &
    main=$!
    wait_until 10 test -S "$XDG_RUNTIME_DIR/kbsup/control.sock"
    session -- true
    expect_status 0
    found=$(python3 "$TESTS/integration/canary.py" "$CANARY_FILE" --pid "$main" 2>/dev/null) ||
        fail "it is in a process: $found"
    kill "$main"
    wait "$main" || true
}

no_sockets() {
    local agent=$WORK/agent.sock
    python3 -c '
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(120)' "$agent" &
    local holder=$!
    wait_until 10 test -S "$agent"
    SSH_AUTH_SOCK=$agent DOCKER_HOST=unix://$agent DBUS_SESSION_BUS_ADDRESS=unix:path=$agent \
        GPG_AGENT_INFO=$agent session -- sh -c 'env | grep -E "SSH_AUTH|DOCKER|DBUS|GPG"; find / -type s 2>/dev/null
            ls /run/docker.sock /var/run/docker.sock /run/containerd /run/dbus /run/user /run/systemd 2>/dev/null; echo end'
    kill "$holder"
    expect_equal "$out" end 'sockets'
}

explained() {
    policy 'net connect tcp "api.test:443"' \
        'secret KEY from env for "api.test:443" as header "x-key" intercept'
    run kbsup policy explain "$WS/net.policy" 'connect api.test:443'
    expect_out 'secret: KEY is put into requests, as header x-key, by opening TLS'
    run kbsup policy compile "$WS/net.policy" --emit json
    expect_equal "$(json 'd["secrets"][0]["for"][0]' <<<"$out")" api.test:443
}

tap 'a plain base URL is spoken to in TLS, with the value' base_url
tap 'TLS is opened where the policy asks, and nowhere else' intercepted
tap 'python, node and wget trust the session'"'"'s authority' many_clients
tap 'placeholders in headers, Basic and URLs are replaced' placeholders
tap 'no other host, port or method gets it' nowhere_else
tap 'servers must be who they should be' servers_are_verified
tap 'what a server returns of it is covered' not_returned
tap 'from a variable, a file and a command' from_everywhere
tap 'one that is not to be had is an error, unless it may be left out' not_to_be_had
tap 'from the keyring' keyring
tap 'a rule that lists requests holds within TLS' requests_in_tls
tap 'git over HTTPS with an injected token' git_with_token
tap 'the value is in no process but the broker, in no file' is_nowhere
tap 'a supervisor started from a shell forgets what it exports' foreground_forgets
tap 'no agent, no docker, no bus is in a session' no_sockets
tap 'explain and compile tell of secrets' explained
tap_end
