#!/usr/bin/env bash
# Both lanes, in the product: the same session recorded by either says the same, denied calls with
# their rules included; with both at work a call is recorded once; a session that floods its buffer
# costs a quiet one nothing, and its own loss is counted. Lane bpf needs root and a kernel for it.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" -eq 0 ] || skip_all 'lane bpf needs root'
kbsup run --lane bpf --workspace "$WS" -- true >/dev/null 2>"$WORK/stderr" ||
    skip_all "lane bpf does not work here: $(head -n 1 "$WORK/stderr")"

cat >"$WS/deeds.py" <<'END'
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    result = libc.syscall(number, *args)
    print(name, result, ctypes.get_errno())
os.mkdir(b"made\n\xff"); os.rename(b"made\n\xff", "kept"); os.rmdir("kept")
with open("file", "w") as f: f.write("x")
os.chmod("file", 0o640); os.link("file", "hard"); os.symlink("file", "soft"); os.unlink("hard")
for path in ("none", os.path.expanduser("~/.ssh/id"), "/srv/secret/file"):
    try: open(path)
    except OSError as e: print(path, "refused")
if os.uname().machine == "x86_64":
    call("io_uring_setup", 425, 1, None)
    call("mount", 165, b"a", b"b", b"c", 0, None)
    call("ptrace", 101, 0, 0, 0, 0)
    call("unshare", 272, 0x10000000)
    call("keyctl", 250, 0, 0)
for port in (1, 2):
    s = socket.socket()
    try: s.connect(("127.0.0.1", port))
    except OSError as e: print(e)
try: socket.socket().connect(("10.0.0.1", 80))
except OSError as e: print(e)
pid = os.fork()
if pid == 0: os._exit(7)
os.wait()
try: os.execv("/nowhere/program", ["program"])
except OSError: pass
os.execv("/bin/sh", ["sh", "-c", "exit 5"])
END

# What both have to agree on: who did what to what, and by which rule it was refused.
cat >"$WORK/compare.py" <<'END'
import collections, json, sys
def read(name):
    found, numbers = collections.Counter(), {"1": "init"}
    for line in open(name):
        r = json.loads(line)
        for field in ("pid", "ppid"): # kbsup-init has used up some, more or fewer
            if field in r: r[field] = numbers.setdefault(str(r[field]), "process %d" % len(numbers))
        if r["event"] in ("start", "end", "limit"): continue
        found[tuple(str(r.get(k)) for k in ("event", "pid", "ppid", "syscall", "decision", "rule",
            "path", "path_b64", "path2", "path2_b64", "argv", "exe", "exit_code", "signal", "ip", "port"))] += 1
    return found
bpf, notify = read(sys.argv[1]), read(sys.argv[2])
for title, only in (("bpf", bpf - notify), ("notify", notify - bpf)):
    for key, n in only.items(): print("only", title, n, *key)
print(sum(bpf.values()), "records")
sys.exit(bpf != notify or sum(bpf.values()) < 50)
END

do_deeds() { # lane
    rm -rf "$WS/file" "$WS/soft"
    kbsup run --lane "$1" --workspace "$WS" --name "deeds-$1" -- /usr/bin/python3 -B -I deeds.py \
        >"$WORK/$1.out" 2>"$WORK/stderr" </dev/null || [ $? -eq 5 ] || fail "the session failed"
    kbsup audit query "deeds-$1" --json >"$WORK/$1.jsonl" 2>"$WORK/stderr" || fail 'no records'
    kbsup audit verify "deeds-$1" >/dev/null || fail 'the record does not verify'
}

both_agree() {
    do_deeds bpf
    do_deeds notify
    expect_equal "$(grep -c '"event": *"connect"' "$WORK/bpf.jsonl")" 3 'connects'
    expect_equal "$(cat "$WORK/bpf.out")" "$(cat "$WORK/notify.out")" 'what the program saw'
    python3 "$WORK/compare.py" "$WORK/bpf.jsonl" "$WORK/notify.jsonl"
}

lane_is_said() {
    expect_equal "$(head -n 1 "$WORK/bpf.jsonl" | grep -o 'lane [a-z]*')" 'lane bpf' 'the start record'
    expect_equal "$(head -n 1 "$WORK/notify.jsonl" | grep -o 'lane [a-z]*')" 'lane notify' 'the start record'
    ! grep -q '"lane": *"bpf"' "$WORK/notify.jsonl" || fail 'lane bpf was there too'
    kbsup run --workspace "$WS" --name choice -- true 2>"$WORK/stderr" || fail 'it did not run'
    kbsup audit query choice --json 2>/dev/null | grep -q '"lane": *"bpf"' || fail 'auto is not bpf'
}

nothing_twice() { # of each process one end; of each asked call one record
    python3 - "$WORK/bpf.jsonl" <<'END'
import collections, json, sys
records = [json.loads(line) for line in open(sys.argv[1])]
ends = collections.Counter(r["pid"] for r in records if r["event"] == "exit")
assert ends and set(ends.values()) == {1}, ends
assert {r["lane"] for r in records if r["event"] == "connect"} == {"notify"}
assert {r["lane"] for r in records if r["event"] == "exit"} == {"bpf"}
END
}

FLOOD=300000
QUIET=200
cat >"$WS/flood.py" <<END
import os
for i in range($FLOOD):
    try: os.open("flooded", os.O_RDONLY)
    except OSError: pass
END
cat >"$WS/quiet.py" <<END
import os, time
for i in range($QUIET):
    os.close(os.open("quiet-%d" % i, os.O_CREAT | os.O_WRONLY))
    time.sleep(0.005)
END

flood_is_alone() {
    local flooder
    kbsup run --lane bpf --workspace "$WS" --name flood -- /usr/bin/python3 -B -I flood.py 2>"$WORK/flood.err" &
    flooder=$!
    kbsup run --lane bpf --workspace "$WS" --name quiet -- /usr/bin/python3 -B -I quiet.py 2>"$WORK/stderr" ||
        fail 'the quiet session failed'
    wait "$flooder" || fail "the flood failed: $(cat "$WORK/flood.err")"
    expect_equal "$(kbsup audit query quiet 'event = open and path ~ "**/quiet-*"' --json | wc -l)" \
        "$QUIET" 'opens of the quiet session'
    expect_equal "$(kbsup audit query quiet 'event = loss' --json | wc -l)" 0 'losses of the quiet session'
    kbsup audit query flood 'event = loss or path ~ "**/flooded"' --json >"$WORK/flood.jsonl" 2>/dev/null
    python3 - "$WORK/flood.jsonl" "$FLOOD" <<'END'
import json, sys
records, flood = [json.loads(line) for line in open(sys.argv[1])], int(sys.argv[2])
lost = sum(int(r["count"]) for r in records if r["event"] == "loss")
seen = sum(r["event"] == "open" for r in records)
print(seen, "recorded,", lost, "counted as lost")
# What comes around the flood may be among the lost: the program's own start and end.
assert 0 <= seen + lost - flood <= (200 if lost else 0), (seen, lost)
END
}

tap 'a session says the same by either lane, denied calls and their rules included' both_agree
tap 'the record says which lane, and auto takes the best' lane_is_said
tap 'with both lanes at work every call and every end is recorded once' nothing_twice
tap 'a flood in one session costs a quiet one nothing, and its own loss is counted' flood_is_alone
tap_end
