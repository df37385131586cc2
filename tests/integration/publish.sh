#!/usr/bin/env bash
# Ports of sessions on the host: `run --publish`, `kbsup publish`. The servers and the clients are real;
# the clients run outside.
. "$(dirname "$0")/lib.sh"

PYTHON=/usr/bin/python3
# Serves until its session ends: echoes what comes, then says how many bytes came. Its argument is the
# address it listens on.
cat >"$WS/server.py" <<'END'
import socket, sys, threading
host, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((host, port)); s.listen(200)
open("ready", "w").write("x")
def serve(c):
    n = 0
    try:
        while (d := c.recv(65536)):
            n += len(d)
            c.sendall(d)
        c.sendall(b"#%d" % n)
        c.close()
    except OSError:
        pass
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
END
# Sends what it is told to, half-closes, and checks what comes back.
cat >"$WORK/client.py" <<'END'
import hashlib, os, socket, sys, threading
port, size, clients = (int(x) for x in sys.argv[1:])
failed = []
def visit():
    c = socket.create_connection(("127.0.0.1", port), 20)
    data = os.urandom(size)
    def send():
        c.sendall(data)
        c.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=send); t.start()
    got = bytearray()
    while (d := c.recv(65536)):
        got += d
    t.join()
    if got != data + b"#%d" % size:
        failed.append("%d bytes came back of %d" % (len(got), size))
def guarded():
    try:
        visit()
    except OSError as e:
        failed.append(str(e))
threads = [threading.Thread(target=guarded) for _ in range(clients)]
[t.start() for t in threads]; [t.join() for t in threads]
print("\n".join(sorted(set(failed))) or "all well")
sys.exit(bool(failed))
END

serve() { # session, address, port, options of run…
    local name=$1 address=$2 port=$3
    shift 3
    rm -f "$WS/ready"
    kbsup run --workspace "$WS" --name "$name" --detach "$@" -- \
        "$PYTHON" "$WS/server.py" "$address" "$port" >/dev/null 2>"$WORK/stderr" ||
        fail 'no session'
    wait_until 20 test -s "$WS/ready" || fail 'the server did not come up'
}

visit() { # port, bytes each, clients at once
    run timeout 60 "$PYTHON" "$WORK/client.py" "$@"
    expect_status 0
}

# A port of this host that is free, and stays so long enough.
free_port() {
    "$PYTHON" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

nobody_there() { # port
    ! "$PYTHON" -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)' \
        "$1" 2>/dev/null
}

server_is_reached() {
    local address port
    port=$(free_port)
    for address in 0.0.0.0 127.0.0.1 ::1; do
        serve web "$address" 8080 --publish "$port:8080"
        visit "$port" 100000 3
        kbsup stop web >/dev/null 2>&1
        nobody_there "$port" || fail 'the port outlives its session'
    done
}

bytes_are_exact() {
    local port
    port=$(free_port)
    serve bulk 0.0.0.0 8080 --publish "$port:8080"
    visit "$port" 8000000 2
    visit "$port" 20000 100
    visit "$port" 0 5
    kbsup stop bulk >/dev/null 2>&1
}

# Somebody who takes nothing must hold up nobody else.
slow_reader_stops_nobody() {
    local port slow
    port=$(free_port)
    serve slow 0.0.0.0 8080 --publish "$port:8080"
    "$PYTHON" -c '
import socket, sys, time
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
c.settimeout(2)
try:
    for _ in range(1000):
        c.sendall(b"x" * 65536)
except OSError:
    pass
time.sleep(30)' "$port" &
    slow=$!
    sleep 1
    visit "$port" 1000000 2
    kill "$slow"
    visit "$port" 1000 1
    kbsup stop slow >/dev/null 2>&1
}

published_on_demand() {
    local port
    port=$(free_port)
    serve late 127.0.0.1 9400
    nobody_there "$port"
    run kbsup publish late
    expect_status 0
    expect_equal "$out" ''
    run kbsup publish late "$port:9400"
    expect_status 0
    expect_equal "$out" "127.0.0.1:$port → 9400"
    visit "$port" 5000 1
    run kbsup publish last --json
    expect_equal "$(json 'd' <"$WORK/stdout")" "{'port': 9400, 'host_port': $port, 'host': '127.0.0.1'}"
    run kbsup ps --json
    expect_equal "$(json '[d[0]["ports"][0]["host_port"]]' <"$WORK/stdout")" "$port"
    run kbsup publish late --remove "$port"
    expect_status 0
    nobody_there "$port" || fail 'it is still there'
    run kbsup publish late 0:9400
    expect_status 0
    port=${out#127.0.0.1:}
    port=${port%% *}
    visit "$port" 5000 1
    kbsup stop late >/dev/null 2>&1
}

same_port_unless_told() {
    local port
    port=$(free_port)
    serve same 0.0.0.0 "$port" --publish "$port"
    visit "$port" 1000 1
    kbsup stop same >/dev/null 2>&1
}

visits_are_recorded() {
    local port
    port=$(free_port)
    serve seen 0.0.0.0 8080 --publish "$port:8080"
    visit "$port" 3000 1
    wait_until 10 visit_recorded seen || fail 'no record of the visit'
    kbsup stop seen >/dev/null 2>&1
    run kbsup audit query seen 'lane = net' --json
    expect_equal "$(json '[(r["event"], r["port"], r["decision"], r["outcome"], r.get("bytes"), r.get("result")) for r in L]' <"$WORK/stdout")" \
        "('listen', 8080, 'allowed', 'ok', None, None)
('connect', 8080, 'allowed', 'ok', 3005, 3000)"
    expect_out "by its port $port"
    # The agent did not reach anybody: the visit is no host of its.
    run kbsup audit query seen 'event = connect and ip != ""' --json
    expect_equal "$out" ''
}

visit_recorded() {
    [ -n "$(kbsup audit query "$1" 'event = connect and lane = net' --json)" ]
}

nobody_listens() {
    local port
    port=$(free_port)
    kbsup run --workspace "$WS" --name idle --detach --publish "$port:8080" -- sleep 60 \
        >/dev/null 2>"$WORK/stderr" || fail 'no session'
    run timeout 20 "$PYTHON" "$WORK/client.py" "$port" 10 1
    expect_status 1
    wait_until 10 visit_recorded idle || fail 'no record of the visit'
    run kbsup audit query idle 'event = connect and lane = net' --json
    expect_equal "$(json '[d["outcome"], d["errno"]]' <"$WORK/stdout")" 'failed
ECONNREFUSED'
    kbsup stop idle >/dev/null 2>&1
}

policy_decides() {
    local port
    port=$(free_port)
    # The preset `base` without its line that lets servers listen.
    kbsup policy show base | sed '/net listen any/d; /allow listen/d; s/^policy base/policy quiet/
        s/^    groups .*/&\n    workspace write "."\n    net listen tcp 9000/' >"$WORK/quiet.policy"
    session --policy "$WORK/quiet.policy" --name shut --publish "$port:8080" -- true
    expect_status 4
    expect_one_error
    expect_err 'quiet.policy:'
    expect_err 'net listen tcp 8080'
    nobody_there "$port"
    run kbsup audit query shut --json
    [ "$status" -ne 0 ] || expect_equal "$out" '' 'a session was recorded'
    kbsup run --workspace "$WS" --policy "$WORK/quiet.policy" --name shut2 --detach -- sleep 60 >/dev/null 2>&1
    run kbsup publish shut2 "$port:8080"
    expect_status 4
    expect_one_error
    nobody_there "$port"
    run kbsup publish shut2 "$port:9000"
    expect_status 0
    kbsup stop shut2 >/dev/null 2>&1
}

taken_port_is_said_first() {
    local port taken
    "$PYTHON" -c '
import socket, sys, time
s = socket.create_server(("127.0.0.1", 0))
open(sys.argv[1], "w").write("%d\n" % s.getsockname()[1])
time.sleep(60)' "$WORK/taken" &
    taken=$!
    wait_until 10 test -s "$WORK/taken"
    port=$(cat "$WORK/taken")
    session --name taken --publish "$port" -- touch "$WS/ran"
    kill "$taken"
    expect_status 1
    expect_one_error
    expect_err "$port"
    [ ! -e "$WS/ran" ] || fail 'the session ran all the same'
}

wrong_words() {
    local word
    for word in 0 70000 x 1:2:3 : 8080: -1 ''; do
        run kbsup run --workspace "$WS" "--publish=$word" -- true
        expect_status 2
        expect_one_error
    done
    run kbsup publish nobody 80
    [ "$status" -ne 0 ] || fail 'published for nobody'
    kbsup run --workspace "$WS" --name words --detach -- sleep 60 >/dev/null 2>&1
    run kbsup publish words --remove
    expect_status 2
    run kbsup publish words --remove 9
    expect_status 1
    expect_one_error
    run kbsup publish words 20001 20002 20003 20004 20005 20006 20007 20008 20009 20010 20011 20012 20013 \
        20014 20015 20016 20017
    expect_status 2
    kbsup stop words >/dev/null 2>&1
}

# What the policy leads to the host is not the session's to publish: it would be the host's own.
led_to_the_host() {
    printf 'policy p version 1 extends shell {\n    net connect tcp "127.0.0.1:8080"\n}\n' >"$WORK/led.policy"
    session --policy "$WORK/led.policy" --publish 0:8080 -- true
    expect_status 4
    expect_one_error
}

# A session with a way out has its own relay in the same network: both work.
beside_a_network() {
    local port
    [ "$(id -u)" -eq 0 ] || skip 'one of the two users is enough'
    port=$(free_port)
    printf 'policy p version 1 extends shell {\n    net connect tcp "example.org:443"\n}\n' >"$WORK/net.policy"
    serve net 0.0.0.0 8080 --policy "$WORK/net.policy" --publish "$port:8080"
    visit "$port" 100000 3
    kbsup stop net >/dev/null 2>&1
}

tap 'a server is reached, whatever address it listens on; the port goes with its session' server_is_reached
tap 'bytes are exact both ways, a half-closed connection stays one, 100 at once' bytes_are_exact
tap 'who reads nothing stops nobody else' slow_reader_stops_nobody
tap 'a port of a running session is published on demand, listed, and taken away' published_on_demand
tap 'the port here is the same unless told otherwise' same_port_unless_told
tap 'what is published and each visit is recorded, with its bytes' visits_are_recorded
tap 'where nobody listens the client is told, and the record says so' nobody_listens
tap 'the policy must let the session listen there' policy_decides
tap 'a port that is taken is said before anything starts' taken_port_is_said_first
tap 'wrong words are usage errors' wrong_words
tap 'a port that the policy leads to the host is not published' led_to_the_host
tap 'published ports work beside a network by policy' beside_a_network
tap_end
