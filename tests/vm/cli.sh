#!/usr/bin/env bash
# `kbsup vm` as people and programs use it.
# shellcheck disable=SC2016 # single quotes: the machine's shell expands
. "${0%/*}/lib.sh"

export XDG_STATE_HOME=$VM_CACHE XDG_RUNTIME_DIR=$WORK XDG_CONFIG_HOME=$WORK/config HOME=$WORK
kb() { timeout "${VM_LIMIT:-120}" nice -n 5 "$KBSUP" "$@"; }
json() { python3 -c "import json,sys; d=json.load(sys.stdin); print($1)"; }

section "start, list, status, completion"
same "bases" "default True True" "$(kb vm base list --json | json '" ".join(str(x) for x in (d[-1]["name"], d[-1]["current"], d[-1]["frozen"]))')"
same "no machines" "[]" "$(kb vm list --json | json 'd')"
contains "start --ssh opens a shell" "in web" "$(kb vm start web --ssh 2>"$WORK/said" <<<'echo in $(hostname)')"
contains "and says how it came up" "web forked from default in" "$(cat "$WORK/said")"
same "list" "web running default" "$(kb vm list --json | json '" ".join((d[0]["name"], d[0]["state"], d[0]["base"]))')"
contains "status has live figures" "live" "$(kb vm status web --json | json 'list(d)')"
contains "status for people" "running" "$(kb vm status web)"
same "completion" "web" "$(kb __complete machine | cut -f1)"

section "ssh by ssh-config"
kb vm ssh-config web >"$WORK/ssh"
for _ in $(seq 100); do
	out=$(ssh -F "$WORK/ssh" -o BatchMode=yes web.kbsup 'echo in $(hostname)' 2>"$WORK/why") && break
	sleep 0.2
done
same "ssh by ssh-config ($(tail -1 "$WORK/why"))" "in web" "$out"

section "what an editor does over it: files by SFTP, one connection for all, a forwarded port, a proxy"
head -c 300000 /dev/urandom >"$WORK/sent"
timeout 60 sftp -q -F "$WORK/ssh" -b - web.kbsup <<<"put $WORK/sent there
get there $WORK/back" >/dev/null || fail "sftp: $?"
cmp "$WORK/sent" "$WORK/back" || fail "the file came back changed"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
socks=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
timeout 60 ssh -F "$WORK/ssh" -o BatchMode=yes -M -S "$WORK/mux" -f -N -L "127.0.0.1:$port:127.0.0.1:22" -D "127.0.0.1:$socks" web.kbsup ||
	fail "no connection to share"
same "by the connection that is there" "web" "$(ssh -F "$WORK/ssh" -S "$WORK/mux" web.kbsup hostname)"
contains "a forwarded port" SSH- "$(timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port; head -c 4 <&3")"
contains "through the proxy" SSH- "$(curl -s -m 5 --http0.9 --socks5 "127.0.0.1:$socks" http://127.0.0.1:22/ | head -c 4)"
ssh -F "$WORK/ssh" -S "$WORK/mux" -O exit web.kbsup 2>/dev/null

section "the console takes and shows"
mkfifo "$WORK/keys"
kb vm console web <"$WORK/keys" >"$WORK/screen" &
exec 4>"$WORK/keys"
for _ in $(seq 120); do
	echo >&4
	grep -q login: "$WORK/screen" && break
	sleep 0.5
done
kill %%
wait %% || true
exec 4>&-
contains "the prompt" "login:" "$(cat "$WORK/screen")"

section "forward"
address=$(kb vm forward web 22)
contains "forward" "127.0.0.1:" "$address"
contains "what answers there" SSH- "$(timeout 10 bash -c "exec 3<>/dev/tcp/${address/://}; head -c 4 <&3")"

section "fork, suspend, resume; the list as programs read it"
kb vm fork web web2
same "two" "web web2" "$(kb vm list --json | json '" ".join(m["name"] for m in d)')"
kb vm suspend web web2
same "both suspended" "suspended suspended" "$(kb vm list --json | json '" ".join(m["state"] for m in d)')"
kb vm resume web2
same "columns" "web2 running default 0" "$(kb vm list | awk -F'\t' '$1 == "web2" { sub("/.*", "", $3); print $1, $2, $3, $7 }')"
contains "figures" "cpu_percent" "$(kb vm status web2 --json | json 'sorted(d["live"])')"
contains "and for people" "processors, load" "$(kb status web2)"

section "a suspended machine goes on when somebody logs in"
same "vm ssh" "web still" "$(kb vm ssh web -- 'echo $(hostname) still' 2>/dev/null)"
same "state" running "$(kb vm status web --json | json 'd["state"]')"

section "short forms: start, list, suspend, resume, stop, attach, isolate, bridge, delete"
contains "start finds it" "was running" "$(kb start web 2>&1)"
same "list" "web web2" "$(kb list --json | json '" ".join(m["name"] for m in d)')"
kb suspend web
kb resume web
same "attach is the console" "" "$(VM_LIMIT=5 kb attach web </dev/null 2>&1 | grep -i 'session' || true)"
kb stop --now web
same "stopped" stopped "$(kb status web --json | json 'd["state"]')"
kb isolate web
same "isolated" True "$(kb status web --json | json 'd["isolated"]')"
contains "once is enough" "isolated already" "$(kb isolate web 2>&1)"
kb isolate --off web
same "not any more" False "$(kb status web --json | json 'd["isolated"]')"
kb bridge web
same "bridged" br0 "$(kb status web --json | json 'd["bridge"]')"
kb bridge --off web
refused "isolating a running machine" "while it is stopped" kb vm isolate web2
kb delete web

section "mistakes are named"
refused "an unknown machine" "there is no machine nope" kb vm stop nope
refused "a name that is nearly right" "did you mean: web2" kb vm stop web3
refused "a bad name" "not a name" kb vm start ../x
refused "a wrong verb" "did you mean: kbsup vm suspend" kb vm suspnd web2
refused "an option of another action" "is for: kbsup vm base create" kb vm base list --from x
printf -- '-----BEGIN OPENSSH PRIVATE KEY-----\n' >"$WORK/private"
refused "a private key" "stays here" kb vm base create other --ssh-key "$WORK/private"
refused "what is no image" "neither qcow2 nor" kb vm base create other --from "$0"
same "no base of them" default "$(kb vm base list --json | json '" ".join(sorted({b["name"] for b in d if b["name"] in ("default", "other")}))')"
same "completion of bases" default "$(kb __complete base | cut -f1 | grep -x default)"
kb vm delete web2
nothing_left
