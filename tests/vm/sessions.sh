#!/usr/bin/env bash
# Sessions in machines: as on this machine, over the serial port and over ssh; records are the host's.
# shellcheck disable=SC2016 # single quotes: the session's shell expands
# In a world of its own: see net_world.sh. The base is made outside.
[ "${KB_WORLD_INSIDE:-}" = yes ] || (. "${0%/*}/lib.sh") || exit 1
. "${0%/*}/../integration/net_world.sh"
enter_world "$@"
. "${0%/*}/lib.sh"

. "${0%/*}/host.sh"
KB_TESTS=$(cd "${0%/*}/../integration" && pwd)

section "a place that is not there is refused, with the remedy"
text=$(kb run --vm box -- true 2>&1 >/dev/null) && status=0 || status=$?
same "status" 1 "$status"
contains "why" "/home/dev/code/app cannot be the workspace" "$text"
contains "what to do" "make the directory" "$text"
guest box 'runuser -u dev -- mkdir -p /home/dev/code/app'

section "a command, over the serial port"
kb run --vm box --name first -- sh -c 'echo out; echo err >&2; cat; id -u; pwd; exit 7' \
	<<<'typed in' >"$WORK/out" 2>"$WORK/err" && status=0 || status=$?
same "status" 7 "$status"
same "output" "out typed in 1000 /home/dev/code/app" "$(tr '\n' ' ' <"$WORK/out" | sed 's/ $//')"
contains "errors" err "$(cat "$WORK/err")"
kb run --vm box -q -- sh -c 'head -c 3000000 /dev/zero | tr "\0" x; kill -TERM $$' >"$WORK/out" && status=0 || status=$?
same "by a signal" 143 "$status"
same "all of a large output" 3000000 "$(stat -c %s "$WORK/out")"

section "the workspace stays the person's; nothing else is written"
kb run --vm box -q -- sh -c 'echo made >file; mkdir -p d; ! echo x >/usr/x 2>/dev/null; ls -A /home/dev'  >"$WORK/out"
same "whose" "dev dev" "$(guest box 'stat -c %U /home/dev/code/app/file /home/dev/code/app/d' | tr '\n' ' ' | sed 's/ $//')"
same "the machine's home is not there" code "$(grep -v '^\.' "$WORK/out")"

section "the record is the host's"
kb run --vm box -q --name told -- sh -c 'rm -f gone; touch gone; rm gone; cat /etc/shadow; true' 2>/dev/null
same "machine" box "$(kb audit sessions --json | json '[s["machine"] for s in L if s["name"] == "told"][0]')"
contains "what was run" '/usr/bin/rm' "$(kb audit query told 'event = exec' --json)"
contains "what was removed" '/home/dev/code/app/gone' "$(kb audit query told 'event = unlink' --json)"
contains "what was denied" '/etc/shadow' "$(kb audit query told 'decision = denied' --json)"
kb audit verify told >/dev/null || fail "verify: $?"

section "detached: ps, exec, logs, attach, stop"
kb run --vm box --detach --name long -- sh -c 'while :; do sleep 1; done' >/dev/null
same "ps" "box running" "$(kb ps --json | json '" ".join(s["machine"] + " " + s["state"] for s in L if s["name"] == "long")')"
same "exec" "/home/dev/code/app 5" "$(kb exec long -- sh -c 'echo $PWD 5')"
kb stop --now long
same "stopped" "" "$(kb ps --json | json '" ".join(s["name"] for s in L if s["state"] == "running")')"

section "a terminal has its size and its keys"
vm exec box sh -c "printf '%s\n' 'stty size; read -r line; echo read \$line; exit 3' >/home/dev/code/app/tty.sh"
same "a terminal" "status 3" "$(python3 - "$KBSUP" <<'END'
import os, pty, sys, time, fcntl, termios, struct, select
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], "run", "--vm", "box", "-q", "--", "sh", "tty.sh"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 99, 0, 0))
seen, end, sent = b"", time.time() + 60, False
while time.time() < end:
    if select.select([fd], [], [], 0.2)[0]:
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    if not sent and b"31 99" in seen:
        os.write(fd, b"hello\r")
        sent = True
status = os.waitpid(pid, 0)[1]
ok = sent and b"read hello" in seen
print("status %d" % os.waitstatus_to_exitcode(status) if ok else repr(seen))
END
)"

section "a suspended machine's session goes on with it"
kb run --vm box --detach --name sleeper -- sh -c 'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i >>count; sleep 0.2; done' >/dev/null
sleep 2
kb vm suspend box
sleep 2
kb vm resume box
before=$(guest box 'tail -n 1 /home/dev/code/app/count')
sleep 3
after=$(guest box 'tail -n 1 /home/dev/code/app/count')
[ "$after" -gt "$before" ] || fail "it stands still at $after"
same "still known" running "$(kb ps --json | json '[s["state"] for s in L if s["name"] == "sleeper"][0]')"
same "exec" here "$(kb exec sleeper -- echo here)"
kb stop --now sleeper
kb audit verify sleeper >/dev/null || fail "verify: $?"

section "over ssh, the same"
kb run --vm box --link ssh --name by-ssh -- sh -c 'echo over ssh; cat; exit 9' <<<'typed' >"$WORK/out" 2>"$WORK/err" &&
	status=0 || status=$?
same "status ($(cat "$WORK/err"))" 9 "$status"
same "output" "over ssh typed" "$(tr '\n' ' ' <"$WORK/out" | sed 's/ $//')"
contains "the record" '/usr/bin/cat' "$(kb audit query by-ssh 'event = exec' --json)"

section "a machine that was only added is brought the programs, once"
kb vm add far "ssh://dev@$(kb vm status box --json | json 'd["address"]')" --key "$VMTOOL_STATE/client_key" \
	--host-key "$(cut -d' ' -f1,2 "$VMTOOL_STATE/machines/box/host_key.pub")" 2>/dev/null
same "state" remote "$(kb vm status far --json | json 'd["state"]')"
kb run --vm far -q --name afar -- sh -c 'echo far $(id -u) $PWD; cat /etc/shadow' >"$WORK/out" 2>"$WORK/err" || true
same "a session ($(cat "$WORK/err"))" "far 1000 /home/dev/code/app" "$(cat "$WORK/out")"
contains "the record" '"path":"/etc/shadow"' "$(kb audit query afar 'decision = denied' --json)"
brought=$(guest box 'cd /home/dev/.cache/kbsup/*/ && stat -c "%n %Y.%i" kbsup-guest kbsup-init' | tr '\n' ' ')
contains "both" kbsup-init "$brought"
stop_supervisor
kb run --vm far -q -- true
same "not again" "$brought" "$(guest box 'cd /home/dev/.cache/kbsup/*/ && stat -c "%n %Y.%i" kbsup-guest kbsup-init' | tr '\n' ' ')"
stop_supervisor
guest box 'pkill -u dev kbsup-guest; cd /home/dev/.cache/kbsup/*/ && rm kbsup-guest && echo half >kbsup-guest.kbsup-part && chown dev: kbsup-guest.kbsup-part'
same "after an upload that broke off" again "$(kb run --vm far -q -- echo again 2>&1)"
stop_supervisor
guest box 'pkill -u dev kbsup-guest || true'
kb vm delete far

section "a broken connection is made again, and no record is missing or twice"
kb run --vm box --link ssh --detach --name broken -- sh -c 'i=0; while :; do i=$((i+1)); : >n.$i; rm n.$i; sleep 0.1; done' >/dev/null
for _ in 1 2 3; do
	sleep 1
	guest box 'for i in $(seq 100); do ! pkill -f "[s]shd: dev" || exit 0; sleep 0.2; done; exit 1' || fail "no connection to break"
done
unlinks() { kb audit query broken 'event = unlink' --json | wc -l; }
before=$(unlinks)
for _ in $(seq 200); do
	[ "$(unlinks)" -le "$((before + 5))" ] || break
	sleep 0.2
done
[ "$(unlinks)" -gt "$((before + 5))" ] || fail "no more records: $before, then $(unlinks)"
same "it runs" running "$(kb ps --json | json '[s["state"] for s in L if s["name"] == "broken"][0]')"
kb stop --now broken
kb audit verify broken >"$WORK/out" 2>&1 || fail "verify: $? $(cat "$WORK/out")"
same "each once, in order" True "$(kb audit query broken 'event = unlink' --json | json '(lambda n: n == list(range(1, len(n) + 1)) and len(n) > 10)([int(r["path"].rsplit(".", 1)[1]) for r in L])')"

section "past the bound the session ends, on both sides, and its record says why"
stop_supervisor
export KBSUP_PATIENCE=3
kb run --vm box --link ssh --detach --name late -- sleep 321 >/dev/null
guest box 'systemctl stop ssh.socket ssh.service; pkill -f "[s]shd: dev"' || fail "no connection to break"
for _ in $(seq 100); do
	[ "$(kb ps -a --json | json '[s["state"] for s in L if s["name"] == "late"][0]')" != ended ] || break
	sleep 0.2
done
contains "its record" "could not be reached for 3 s" "$(kb audit query late 'event = end' --json | json 'd["text"]')"
kb audit verify late >/dev/null && status=0 || status=$?
same "verify" 3 "$status"
for _ in $(seq 100); do guest box 'pgrep -f "[s]leep 321" >/dev/null' || break; sleep 0.2; done
guest box '! pgrep -f "[s]leep 321" >/dev/null' || fail "its processes are still there"
guest box 'systemctl start ssh.socket'
stop_supervisor
unset KBSUP_PATIENCE

section "a policy of the workspace's own tightens, and is refused where it cannot be read"
guest box 'printf "policy mine version 1 {\n    fs deny \"/etc/hostname\"\n}\n" >/home/dev/code/app/.kbsup.policy'
kb run --vm box -q --name tightened -- cat /etc/hostname >"$WORK/out" 2>&1 && status=0 || status=$?
same "cat" 1 "$status"
contains "denied by it" hostname "$(kb audit query tightened 'decision = denied' --json)"
guest box 'ln -sf /etc/shadow /home/dev/code/app/.kbsup.policy'
refused "a link" "is not a plain file" kb run --vm box -q -- true
guest box 'rm /home/dev/code/app/.kbsup.policy'

section "limits hold"
printf 'policy tight version 1 extends shell {\n    limit memory 64M\n}\n' >tight.policy
kb run --vm box -q --policy tight.policy -- sh -c 'head -c 200000000 /dev/zero | tail -c 150000000 | wc -c' >"$WORK/out" 2>/dev/null || true
same "what it got" 0 "$(cat "$WORK/out")"

printf 'policy few version 1 extends shell {\n    limit pids 24\n    limit cpu 0.5\n}\n' >few.policy
kb run --vm box -q --name few --policy few.policy -- sh -c 'i=0; while [ $i -lt 60 ]; do echo $((i += 1)); sleep 2 & done' >"$WORK/out" 2>/dev/null || true
started=$(tail -n 1 "$WORK/out")
[[ $started =~ ^[0-9]+$ && $started -gt 5 && $started -lt 24 ]] || fail "of 60 processes with room for 24: '$started'"
contains "its record" "limit of processes was reached" "$(kb audit query few 'event = limit' --json)"
busy='read -r a _ </proc/uptime; i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; read -r b _ </proc/uptime; echo $a $b; times'
share() { kb run --vm box -q "$@" -- sh -c "$busy" | awk 'NR == 1 { wall = $2 - $1 } NR == 2 { split($1 "m" $2, t, /[ms]/); print int((t[1] * 60 + t[2]) * 100 / wall) }'; }
half=$(share --policy few.policy)
whole=$(share)
if [ "$half" -gt 65 ] || [ "$whole" -le 80 ]; then fail "of half a processor $half %, of a whole one $whole %"; fi

section "a server in it is reached from this host; logs and attach show what it says"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
kb run --vm box --detach --name server --publish "$port:8080" -- perl -MIO::Socket::INET -e '
	$| = 1; $s = IO::Socket::INET->new(LocalAddr => "0.0.0.0", LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die $@;
	print "listening\n"; while ($c = $s->accept) { $l = <$c>; print "asked $l"; print $c "you said $l"; close $c }' >/dev/null
for _ in $(seq 100); do [ -z "$(kb audit query server 'event = listen and comm = "perl"' --json)" ] || break; sleep 0.2; done
contains "logs" "0.0.0.0:8080" "$(kb logs server)"
same "what it answers" "you said hello" "$(timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port; echo hello >&3; cat <&3")"
timeout 30 "$KBSUP" attach server >"$WORK/seen" </dev/null 2>&1 &
attached=$!
for _ in $(seq 50); do
	timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port; echo again >&3; cat <&3" >/dev/null
	! grep -q "asked again" "$WORK/seen" || break
	sleep 0.2
done
contains "attached" "asked again" "$(cat "$WORK/seen")"
kb stop --now server
wait "$attached" || true
! timeout 5 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null || fail "its port is still open"

section "the network: what the policy names, by the host; secrets are put in there"
(umask 077; printf 'Canary%s' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >"$WORK/canary")
cat >net.policy <<END
policy net version 1 extends shell {
    net connect tcp "api.test:443"
    secret API_KEY from file "$WORK/canary" for "api.test:443" as header "X-Api-Key" url API_URL "/v1"
}
END
kb run --vm box -q --name netted --policy net.policy -- sh -c 'echo "$API_KEY"; curl -fsS -m 30 "$API_URL/base"
	curl -sS -m 30 -o /dev/null http://other.test/ || echo refused' >"$WORK/out" 2>"$WORK/err" || fail "it failed: $(cat "$WORK/err")"
same "what it saw ($(cat "$WORK/err"))" "kbsup-secret-API_KEY hello from api.test" "$(head -n 2 "$WORK/out" | tr '\n' ' ' | sed 's/ $//')"
grep -F ' /v1/base ' "$KB_WORLD/headers.log" | grep -qF "$(cat "$WORK/canary")" || fail "the server did not see the value"
contains "allowed" '"host":"api.test"' "$(kb audit query netted 'event = connect and decision = allowed' --json)"
contains "denied" 'other.test' "$(kb audit query netted 'decision = denied' --json)"
kb vm suspend box
found=$(python3 "${KB_TESTS:?}/canary.py" "$WORK/canary" --tree "$VM_CACHE/kbsup/store" --tree "$VMTOOL_STATE/machines" --tree "$VMTOOL_STATE/disks" --tree "$VMTOOL_RUN") ||
	fail "the value is in: $found"
kb vm resume box

section "an isolated machine has no way out, its sessions have what their policy names"
kb vm start closed --isolated 2>/dev/null
guest closed 'runuser -u dev -- mkdir -p /home/dev/code/app'
same "the machine itself" refused "$(guest closed 'timeout 5 bash -c "exec 3<>/dev/tcp/10.0.2.2/80" 2>/dev/null && echo reached || echo refused')"
same "a session" "hello from api.test" "$(kb run --vm closed -q --policy net.policy -- sh -c 'curl -fsS -m 30 "$API_URL/base"' 2>"$WORK/err" || cat "$WORK/err")"
kb vm delete closed

section "a fresh machine for one session, gone with it"
same "it has what the first has" tty.sh "$(kb run --vm box --fresh -q --name once -- sh -c 'ls tty.sh; : >only-there' 2>"$WORK/err" || cat "$WORK/err")"
same "and keeps its own" "" "$(guest box 'ls /home/dev/code/app' | grep only-there || true)"
contains "the record" fresh- "$(kb audit sessions --json | json '[s["machine"] for s in L if s["name"] == "once"][0]')"
same "gone" box "$(kb vm list --json | json '" ".join(m["name"] for m in d)')"
refused "not with --detach" "goes with the command" kb run --fresh --detach -- true

section "a killed machine: what came is there, and verify says that there was more"
kb run --vm box --detach --name cut -- sh -c 'echo x >cut-began; while :; do sleep 0.1; done' >/dev/null
for _ in $(seq 100); do
	[ -z "$(kb audit query cut 'path ~ "**/cut-began"' --json)" ] || break
	sleep 0.2
done
kb vm stop --now box
for _ in $(seq 150); do
	[ "$(kb ps -a --json | json '[s["state"] for s in L if s["name"] == "cut"][0]')" != running ] || sleep 0.2
done
same "its state" "ended: machine box is stopped" "$(kb ps -a --json | json '[s["state"] + ": " + s["reason"] for s in L if s["name"] == "cut"][0]')"
contains "what came before" cut-began "$(kb audit query cut 'path ~ "**/cut-began"' --json)"
kb audit verify cut >/dev/null && status=0 || status=$?
same "verify" 3 "$status"

section "the machine comes back for the next"
same "again" again "$(kb run --vm box -q -- echo again)"
