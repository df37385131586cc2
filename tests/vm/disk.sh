#!/usr/bin/env bash
# The encrypted disk: from machine to machine, never to two, never lost, and its keys nowhere.
# shellcheck disable=SC2016 # single quotes: the machine's shell expands
# A mount namespace of its own, so that the file system that runs full goes with the test.
if [ "$(id -u)" -eq 0 ] && [ -z "${OWN_MOUNTS:-}" ]; then
	exec env OWN_MOUNTS=1 unshare --mount --propagation private "$0" "$@"
fi
. "${0%/*}/lib.sh"

PASS='korrekt pferd, Batterie-Klammer'
LUKS=$VMTOOL_STATE/luks/p
MOUNTED=/mnt/p

# with PASSPHRASE COMMAND…
with() {
	local pass=$1
	shift
	vm "$@" < <(printf %s "$pass")
}
attach() { with "$PASS" disk-attach "$@" >/dev/null; }
disk() { vm disk-list | awk '$1 == "p" { print $2 }'; }
disk_field() { vm disk-list | awk '$1 == "p"' | tr ' ' '\n' | sed -n "s/^$1=//p"; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
qemu_of() { field "$1" pid; }

# What the program that makes the volume is told, by arguments and variables: it is gone too soon to
# be watched, and before the key is known.
mkdir "$WORK/bin"
cat >"$WORK/bin/qemu-img" <<SHIM
#!/bin/sh
{ printf '%s\n' "\$@"; env; } >>"$WORK/told"
exec "$(command -v qemu-img)" "\$@"
SHIM
chmod +x "$WORK/bin/qemu-img"

section "making one"
for m in a b; do vm start $m >/dev/null & done
PATH=$WORK/bin:$PATH with "$PASS" disk-create p 256
wait
same "a fresh one" detached "$(disk)"
[ "$(disk_field occupied)" -le $((4 << 20)) ] || fail "a fresh disk occupies $(disk_field occupied) bytes"
same "closed to others" 600 "$(stat -c %a "$LUKS/disk.luks" "$LUKS/key.pem" | sort -u)"
refused "the same name" "there is a disk p already" with "$PASS" disk-create p 256
refused "an empty passphrase" "needs its passphrase" vm disk-attach p a </dev/null
refused "a bad place" "cannot be mounted at" with "$PASS" disk-create q 256 /etc
refused "too small" "a disk has between" with "$PASS" disk-create q 1
same "nothing of the refused is left" p "$(vm disk-list | cut -d' ' -f1)"

# ---- what must not be found -----------------------------------------------------------------------
printf %s "$PASS" >"$WORK/pass"
openssl pkey -in "$LUKS/key.pem" -passin "file:$WORK/pass" -outform DER | tail -c 32 | hex >"$WORK/key"
MASTER=$("$LUKSMASTER" "$LUKS/disk.luks" <"$WORK/key") || fail "the volume's master key cannot be computed"
{
	echo "passphrase $(hex <"$WORK/pass")"
	echo "key $(cat "$WORK/key")"
	echo "master $MASTER"
	echo "half $(cut -c1-64 <<<"$MASTER")"
} >"$WORK/needles"
rm "$WORK/pass"
CANARY=${0%/*}/canary.py
contains "what the volume's maker was told" /disk.luks "$(cat "$WORK/told")"
python3 "$CANARY" "$WORK/needles" files "$WORK/told" >"$WORK/found" || fail "told to the volume's maker: $(cat "$WORK/found")"
touch "$WORK/watching"
python3 "$CANARY" "$WORK/needles" watch "$WORK/watching" >"$WORK/watched" &
watcher=$!

section "attaching"
refused "the wrong passphrase" "wrong passphrase" with "${PASS}x" disk-attach p a
same "still nobody's" detached "$(disk)"
KBSUP_LOG=debug attach p a 2>"$WORK/debug.log"
same "attached" "attached a" "$(disk) $(disk_field machine)"
same "its owner" dev "$(guest a "stat -c %U $MOUNTED")"
contains "its mount" "ext4 rw,nosuid,nodev" "$(guest a "findmnt -no FSTYPE,OPTIONS $MOUNTED | tr -s ' '")"
guest a "echo kept >$MOUNTED/file; echo canary-of-the-file-itself >$MOUNTED/secret; sync"
attach p a </dev/null || fail "attaching it where it is"
refused "a second user" "in use by machine a" attach p b
refused "deleting it" "in use by machine a" vm disk-delete p
refused "growing it" "in use by machine a" vm disk-grow p 512
same "its process writes no core" "1 1" "$(awk '/core file/ { print $5, $6 }' "/proc/$(qemu_of a)/limits")"

section "busy"
guest a "(cd $MOUNTED && exec sleep 1000) >/dev/null 2>&1 & sleep 0.2"
refused "detaching names who" "is in $MOUNTED" vm disk-detach p
refused "so does a suspend" "sleep (" vm suspend a
refused "and a fork" "sleep (" vm fork a c
same "it is as it was" "running attached kept" "$(state a) $(disk) $(guest a "cat $MOUNTED/file")"
guest a 'pkill sleep; unshare --mount --propagation private sleep 1001 >/dev/null 2>&1 & sleep 0.5'
refused "a mount elsewhere counts" "has it mounted at $MOUNTED" vm disk-detach p
same "and it is put back" kept "$(guest a "cat $MOUNTED/file")"
vm disk-detach p now
same "killed on request" "detached 1" "$(disk) $(guest a 'pgrep -c systemd-logind; ! pgrep -f "^sleep 1001" >/dev/null || echo alive')"
same "no mount point is left to write on" gone "$(guest a "[ -e $MOUNTED ] || echo gone")"
vm disk-detach p || fail "detaching a detached disk"

section "another machine"
attach p b
same "reads" kept "$(guest b "cat $MOUNTED/file")"
attach p b "$MOUNTED" || fail "attaching it where it is, with its place"

section "fork"
vm fork b c >/dev/null
same "the source has it" "attached b kept" "$(disk) $(disk_field machine) $(guest b "cat $MOUNTED/file")"
same "the fork does not" none "$(guest c "ls /dev/sd? 2>/dev/null || echo none")"
vm delete c

section "suspend"
guest b "echo before >$MOUNTED/file"
vm suspend b
same "let go, and wanted back" "detached 1" "$(disk) $(disk_field wanted)"
python3 "$CANARY" "$WORK/needles" files "$VMTOOL_STATE/machines/b" "$VMTOOL_STATE/disks" >"$WORK/found" || fail "$(cat "$WORK/found")"
attach p a
same "meanwhile another's" before "$(guest a "cat $MOUNTED/file")"
guest a "echo after >$MOUNTED/file"
vm resume b >/dev/null
same "it came back without it" none "$(guest b "ls /dev/sd? 2>/dev/null || echo none")"
vm disk-detach p
attach p b
same "and gets it again" after "$(guest b "cat $MOUNTED/file")"

section "memory"
python3 "$CANARY" "$WORK/needles" memory "$(qemu_of b)" >"$WORK/found" && fail "the search finds nothing even where it is"
contains "QEMU has the master key" half "$(cat "$WORK/found")"
python3 - "$VMTOOL_RUN/$(awk -F'"' '$2 == "id" { print $4 }' "$VMTOOL_STATE/machines/b/machine.json")/spare.sock" "$WORK/ram" <<'PY'
import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(60)
f = s.makefile("rw"); f.readline()
for command, arguments in ("qmp_capabilities", {}), ("pmemsave", {"val": 0, "size": 512 << 20, "filename": sys.argv[2]}):
    f.write(json.dumps({"execute": command, "arguments": arguments}) + "\n"); f.flush()
    while "return" not in (answer := json.loads(f.readline())):
        assert "error" not in answer, answer
PY
python3 "$CANARY" "$WORK/needles" files "$WORK/ram" || fail "in the machine's memory"
rm -f "$WORK/ram"

section "everything on this host"
rm "$WORK/watching"
wait "$watcher" || fail "$(cat "$WORK/watched")"
python3 "$CANARY" "$WORK/needles" files "$VMTOOL_STATE" "$VMTOOL_RUN" "$WORK/debug.log" >"$WORK/found" || fail "$(cat "$WORK/found")"
grep -q "mount:" "$WORK/debug.log" || fail "the log was empty"
same "the file is not in the volume" 0 "$(grep -c canary-of-the-file-itself "$LUKS/disk.luks")"
# Its contents without kbsup, as the manual says.
printf %s "$(cat "$WORK/key")" >"$WORK/key.raw"
vm disk-detach p
contains "other programs read it" "53 ef" "$(qemu-io -r -c 'read -v 1080 2' --object "secret,id=k,file=$WORK/key.raw" \
	--image-opts "driver=luks,key-secret=k,file.filename=$LUKS/disk.luks")"
rm -f "$WORK"/key* "$WORK"/needles

# ---- interruptions --------------------------------------------------------------------------------

# at STEP KILL COMMAND…: run KILL (a command, with the operation's pid as its last word) when the
# operation reports that step.
at() {
	local step=$1 kill=$2 op _
	shift 2
	: >"$WORK/steps"
	VMTOOL_QUIET='' nice -n 5 "$VMTOOL" "$@" < <(printf %s "$PASS") >/dev/null 2>"$WORK/steps" &
	op=$!
	for _ in $(seq 1000); do
		! grep -q " $step:" "$WORK/steps" || break
		sleep 0.01
	done
	grep -q " $step:" "$WORK/steps" || fail "$1 never came to $step"
	$kill "$op" 2>/dev/null || true
	wait "$op" 2>/dev/null || true
}
kill_op() { kill -9 "$1"; }
kill_late() { sleep 0.15; kill -9 "$1"; }
kill_qemu() { kill -9 "$(qemu_of a)"; }

section "kbsup killed while it attaches"
for step in plug mount; do
	for how in kill_op kill_late; do
		at "$step" $how disk-attach p a
		case $(disk) in
		detached | unclean | incomplete | attached) ;;
		*) fail "killed at $step: the disk is $(disk)" ;;
		esac
		[ "$(disk)" != incomplete ] || refused "named" "by machine a" attach p b
		attach p a || fail "attach does not finish what was killed at $step"
		same "whole" after "$(guest a "cat $MOUNTED/file")"
		vm disk-detach p
	done
done

section "kbsup killed while it makes the file system"
with "$PASS" disk-create q 64
at format kill_op disk-attach q a
attach q a || fail "the file system is not made after all"
guest a 'echo first >/mnt/q/file; sync'
vm disk-detach q
attach q b
same "made once" first "$(guest b 'cat /mnt/q/file')"
vm disk-detach q
vm disk-delete q

section "kbsup killed while it detaches, suspends, forks"
attach p a
at unmount kill_op disk-detach p
vm disk-detach p || fail "detach does not finish a detach"
same "detached" detached "$(disk)"
attach p a
at move kill_op fork a c
attach p a </dev/null || fail "a killed fork: it is not given back without the passphrase"
same "given back" after "$(guest a "cat $MOUNTED/file")"
vm delete c 2>/dev/null || true
at move kill_op suspend a
vm start a >/dev/null || fail "start does not mend a killed suspend"
attach p a || fail "a killed suspend: attaching fails"
same "there again" after "$(guest a "cat $MOUNTED/file")"

section "cancelled"
vm disk-detach p
at mount 'kill -TERM' disk-attach p a
case $(disk) in detached | attached) ;; *) fail "cancelled: the disk is $(disk)" ;; esac
vm disk-detach p

section "QEMU killed"
for step in plug mount; do
	at "$step" kill_qemu disk-attach p a
	case $(disk) in detached | unclean) ;; *) fail "QEMU killed at $step: the disk is $(disk)" ;; esac
	attach p b || fail "what a killed QEMU had cannot be attached"
	same "whole" after "$(guest b "cat $MOUNTED/file")"
	vm disk-detach p
	vm delete a
	vm start a >/dev/null
done
attach p a
guest a "echo synced >$MOUNTED/file; sync; echo lost >$MOUNTED/other"
kill -9 "$(qemu_of a)"
for _ in $(seq 50); do [ "$(state a)" != crashed ] || break; sleep 0.1; done
same "named" unclean "$(disk)"
refused "not where nothing runs" "machine a is crashed" attach p a
attach p b
same "what was written is there" synced "$(guest b "cat $MOUNTED/file")"
vm disk-detach p
vm delete a

section "a machine that ends or loses its mount"
attach p b
guest b "echo kept >$MOUNTED/file; sync; umount $MOUNTED"
same "unmounted in the machine" incomplete "$(disk)"
attach p b </dev/null || fail "it is not mounted again without the passphrase"
guest b "(cd $MOUNTED && exec sleep 1000) >/dev/null 2>&1 &"
vm stop b now
same "let go first, and whole" "detached 1" "$(disk) $(disk_field wanted)"
attach_new() { vm delete b; vm start b >/dev/null; attach p b; }
attach_new
same "whole" kept "$(guest b "cat $MOUNTED/file")"
guest b "echo kept >$MOUNTED/file; (cd $MOUNTED && exec sleep 1000) >/dev/null 2>&1 &"
vm stop b
same "a shutdown unmounts what is in use" "detached 1" "$(disk) $(disk_field wanted)"
vm delete b
same "not wanted by who is gone" 0 "$(disk_field wanted)"
vm start b >/dev/null
attach p b
same "whole" kept "$(guest b "cat $MOUNTED/file")"

section "a damaged file system"
guest b "umount $MOUNTED; debugfs -w -R 'clri <2>' /dev/sda 2>/dev/null"
vm disk-detach p
refused "said so" "is damaged: " attach p b
same "not mounted" detached "$(disk)"
contains "repaired" mended=1 "$(with "$PASS" disk-attach p b repair)"
guest b "cd $MOUNTED; for f in lost+found/*; do case \$(cat \$f) in kept) mv \$f file;; canary*) mv \$f secret;; esac; done"
same "nothing was lost" kept "$(guest b "cat $MOUNTED/file")"
vm disk-detach p

section "larger"
vm disk-grow p 512
refused "never smaller" "cannot be made smaller" vm disk-grow p 256
attach p b
[ "$(disk_field total)" -gt $((400 << 20)) ] || fail "the file system did not grow: $(disk_field total)"
same "whole" kept "$(guest b "cat $MOUNTED/file")"

section "two in one machine"
with "$PASS" disk-create q 64
refused "never one over the other" "is mounted at $MOUNTED already" with "$PASS" disk-attach q b $MOUNTED
same "and it is let go" "q detached" "$(vm disk-list | awk '$1 == "q" { print $1, $2 }')"
attach q b
same "each at its place" "/mnt/p /mnt/q" "$(guest b "findmnt -rno TARGET -t ext4 | grep /mnt | sort | xargs")"
vm disk-detach p
guest b 'echo second >/mnt/q/file; sync'
same "the other stays" second "$(guest b 'cat /mnt/q/file')"
vm disk-detach q
vm disk-delete q

section "another program has it"
qemu-io -c 'sleep 20000' --image-opts "driver=raw,file.driver=file,file.filename=$LUKS/disk.luks" >/dev/null 2>&1 &
holder=$!
for _ in $(seq 50); do [ "$(disk)" != foreign ] || break; sleep 0.1; done
refused "said so" "a program that is no machine has it" attach p b
kill "$holder"
wait "$holder" 2>/dev/null || true

section "two at once"
vm start a >/dev/null
attach p a 2>/dev/null & one=$!
attach p b 2>/dev/null & two=$!
won=0
wait $one && won=$((won + 1))
wait $two && won=$((won + 1))
same "one wins" 1 $won

section "it outlives every machine"
vm delete a
vm delete b
same "all gone" '' "$(vm list)"
case $(disk) in detached) ;; *) fail "after its machine was deleted it is $(disk)" ;; esac
same "nothing wants it" 0 "$(disk_field wanted)"
vm start z >/dev/null
attach p z
same "and it is all there" "kept canary-of-the-file-itself" "$(guest z "echo \$(cat $MOUNTED/file $MOUNTED/secret)")"
vm disk-detach p

if [ -n "${OWN_MOUNTS:-}" ]; then
	section "the host's file system is full"
	with "$PASS" disk-create q 256
	small=$VMTOOL_STATE/luks/q
	mkdir "$WORK/small"
	mount -t tmpfs -o size=40m kbsup-disk-test "$WORK/small"
	cp -a "$small/." "$WORK/small/"
	mount --bind "$WORK/small" "$small"
	refused "too little to begin" "are needed where" attach q z
	mount -o remount,size=80m "$WORK/small"
	attach q z
	vm exec z sh -c 'dd if=/dev/urandom of=/mnt/q/big bs=1M count=100 conv=fsync 2>/dev/null; echo written >/mnt/q/file; sync' &
	writer=$!
	for _ in $(seq 300); do
		[ "$(state z)" != no-space ] || break
		sleep 0.2
	done
	same "the machine waits" no-space "$(state z)"
	refused "nothing is unmounted meanwhile" "machine z is no-space" vm disk-detach q
	mount -o remount,size=300m "$WORK/small"
	vm resume z >/dev/null
	wait $writer || fail "the write failed"
	vm disk-detach q
	attach q z
	same "nothing was lost" "written $((100 << 20))" "$(guest z 'echo $(cat /mnt/q/file) $(stat -c %s /mnt/q/big)')"
	vm disk-detach q
	umount "$small" "$WORK/small"
	vm disk-delete q
fi
vm delete z
vm disk-delete p
same "deleted" '' "$(find "$VMTOOL_STATE/luks" -mindepth 1)"
nothing_left
