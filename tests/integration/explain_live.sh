#!/bin/bash
# What `policy explain` says of files, programs and addresses is what a session meets: each question
# is asked of the policy, and tried in a session under it, in each lane there is.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

D=$WORK/data
mkdir -p "$D"/{plain/sub,keys/public,keys/private,frozen/sub,out/ro,bin,mixed/secret/shared}
mkdir -p "$WS"/{.git/hooks,src,certs,vault/open,vendor/x/.git/hooks,conf}
for f in plain/a plain/sub/b keys/private/k keys/public/p frozen/f frozen/sub/g out/ro/r out/o \
    mixed/m mixed/secret/s mixed/secret/shared/h; do
    echo text >"$D/$f"
done
for f in .env src/main.c certs/a.pem certs/b.pem vault/v vault/open/o .git/config .git/hooks/h \
    vendor/x/.git/hooks/h conf/c; do
    echo text >"$WS/$f"
done
for f in "$D/bin/tool" "$D/bin/denied" "$WS/src/run" "$D/plain/tool"; do cp /bin/true "$f"; done
mkdir -p "$HOME/.ssh"
echo key >"$HOME/.ssh/id"
echo hosts >"$HOME/.ssh/known_hosts"

cat >"$WORK/live.policy" <<E2
policy live version 1 extends project {
    fs read "$D/plain" "$D/bin"
    fs write "$D/keys" "$D/out"
    fs deny "$D/keys"
    fs read "$D/keys/public"
    fs write "$D/frozen" except "$D/frozen/sub"
    fs read "$D/out/ro"
    fs read "$D/mixed" except "$D/mixed/secret"
    fs write "$D/mixed/secret/shared"
    exec allow "$D/bin"
    exec deny "$D/bin/denied"
    fs read "~/.ssh/known_hosts" override reason "public keys of hosts"
    fs keep "~/.kept"
    fs deny "~/.kept/plugins"
    fs read "certs/b.pem" override reason "a public certificate"
    workspace hide "vault" "conf/c"
    workspace read "vault/open"
    net deny EACCES "127.0.0.1:7"
    net listen tcp 3000
}
E2
# One mistake for each word: a deny and a give of the same path in one file must be told apart.
same_file_is_refused() {
    run kbsup policy check "$WORK/live.policy"
    expect_status 1
    expect_out 'cover the same path'
}

cat >"$WS/probe.py" <<'E2'
import errno, os, socket, sys

def attempt(kind, what):
    if kind == "read":
        os.close(os.open(what, os.O_RDONLY))
    elif kind == "write":
        new = not os.path.exists(what)
        os.close(os.open(what, os.O_WRONLY | (os.O_CREAT if new else 0)))
        if new:
            os.unlink(what)
    elif kind == "exec":
        pid = os.fork()
        if pid == 0:
            try:
                os.execv(what, [what])
            except OSError as e:
                os._exit(e.errno)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            raise OSError(code, "exec")
    elif kind == "listen":
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", int(what)))
        s.listen()
        s.close()
    else:
        host, port = what.rsplit(":", 1)
        socket.create_connection((host, int(port)), 5).close()

for line in sys.stdin:
    kind, what = line.split()
    try:
        attempt(kind, what)
        print(kind, what, "ok")
    except OSError as e:
        print(kind, what, errno.errorcode.get(e.errno, "other"))
E2

questions() {
    cat <<E2
read $D/plain/a
write $D/plain/a
write $D/plain/new
exec $D/plain/tool
read $D/keys/private/k
write $D/keys/new
read $D/keys/public/p
write $D/keys/public/p
write $D/frozen/f
write $D/frozen/new
read $D/frozen/sub/g
write $D/frozen/sub/g
write $D/frozen/sub/new
write $D/out/o
read $D/out/ro/r
write $D/out/ro/r
read $D/mixed/m
read $D/mixed/secret/s
read $D/mixed/secret/shared/h
write $D/mixed/secret/shared/h
exec $D/bin/tool
exec $D/bin/denied
read $D/bin/denied
write $D/bin/new
read $HOME/.ssh/id
read $HOME/.ssh/known_hosts
write $HOME/.ssh/known_hosts
write $HOME/.ssh/new
write $HOME/.aws/new
read $HOME/.netrc
write $HOME/.config/gh/hosts.yml
write $HOME/.config/other
write $HOME/.kept/new
write $HOME/.kept/plugins/new
write $HOME/new
read $WS/.env
write $WS/.env
write $WS/src/main.c
write $WS/src/new
exec $WS/src/run
read $WS/certs/a.pem
read $WS/certs/b.pem
write $WS/certs/b.pem
read $WS/vault/v
write $WS/vault/new
read $WS/vault/open/o
read $WS/conf/c
read $WS/.git/config
write $WS/.git/config
write $WS/.git/hooks/h
write $WS/.git/hooks/new
write $WS/vendor/x/.git/hooks/h
write $WS/vendor/x/new
read /etc/shadow
write /etc/new
read /usr/bin/env
write /usr/bin/new
exec /usr/bin/true
read /srv
read /proc/self/status
write /proc/sys/kernel/hostname
write /dev/null
write /tmp/new
listen 3000
connect 127.0.0.1:5
connect 127.0.0.1:7
connect 10.1.2.3:80
connect 169.254.169.254:80
connect example.org:443
E2
}

# Says "KIND WHAT" and the two answers where they are not the same.
compare() { # lines of the session
    local kind what live said
    while read -r kind what live; do
        said=$(kbsup policy explain "$WORK/live.policy" "$kind" "$what" --json) || fail "explain $kind $what"
        printf '%s' "$said" | python3 -c '
import json, sys
kind, what, live = sys.argv[1:]
d = json.load(sys.stdin)
allowed = d["decision"] == "allowed"
# Where nobody listens, an allowed connection is refused by the peer; nothing else is an answer.
if live == "ok" or (kind == "connect" and live == "ECONNREFUSED"):
    good = allowed
else:
    # A name that may not be looked up cannot be told from one that does not exist; a read-only
    # mount answers before Landlock.
    errors = {d.get("errno"), d.get("path", {}).get("errno"), "other" if kind == "connect" else None}
    if kind == "write" and "EACCES" in errors:
        errors.add("EROFS")
    if d.get("path", {}).get("allowed"):  # a tree of its own: the machine has it, the session does not
        errors.add("ENOENT")
    good = not allowed and live in errors
if not good:
    print(kind, what, ": met", live, "; explained as", d["decision"], d.get("errno"), d.get("path", {}).get("errno"))
' "$kind" "$what" "$live"
    done <<<"$1"
}

lane_agrees() { # lane
    questions >"$WS/questions"
    run kbsup run --workspace "$WS" --policy "$WORK/live.policy" --lane "$1" -- \
        sh -c 'python3 probe.py <questions'
    expect_status 0
    lines=$(questions | wc -l)
    [ "$(printf '%s\n' "$out" | wc -l)" = "$lines" ] || fail "not all was tried"
    met=$out
    differ=$(compare "$met")
    [ -z "$differ" ] || fail "$differ"
}

tap 'a deny and a give of one path in one file are refused' same_file_is_refused
sed -i 's#^    fs write "\(.*\)/keys" "\(.*\)/out"#    fs write "\1/out"#' "$WORK/live.policy"
tap 'lane notify: explained is what is met' lane_agrees notify
[ "$(id -u)" -ne 0 ] || tap 'lane bpf: explained is what is met' lane_agrees bpf
tap_end
