#!/usr/bin/env bash
# kbsup doctor on machines: what works is said to work, what was broken is named, and the fix it prints
# mends it.
. "${0%/*}/lib.sh"

export XDG_STATE_HOME=$VM_CACHE XDG_RUNTIME_DIR=$WORK XDG_CONFIG_HOME=$WORK/config HOME=$WORK

# Of one check: a field, in the JSON document at $WORK/doctor.
field_of() {
	python3 -c 'import json, sys
for check in json.load(open(sys.argv[1]))["checks"]:
    if check["name"] == sys.argv[2]:
        print(check[sys.argv[3]] or "")' "$WORK/doctor" "$1" "$2"
}

# doctor [VARIABLE=VALUE…]: its exit status is for sessions, which this is not about
doctor() { env "$@" timeout 120 nice -n 5 "$KBSUP" doctor --json >"$WORK/doctor" || true; }

end_supervisor() {
	local pid
	pid=$("$KBSUP" status --json 2>/dev/null | python3 -c 'import json,sys; print(json.load(sys.stdin).get("pid") or "")')
	[ -z "$pid" ] || kill "$pid"
	for _ in $(seq 100); do
		[ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.1
	done
}

# programs_of_base HASH-OF-MACHINE: what the manifest says that the base was given
programs_of_base() {
	python3 - "$manifest" "$(sum_of "$VMTOOL_GUEST")-$(sum_of "$VMTOOL_INIT")" "$1" <<'PY'
import json, sys
path, programs, machine = sys.argv[1:]
with open(path) as f:
    base = json.load(f)
base.update(programs=programs, machine_program=machine)
with open(path, "w") as f:
    json.dump(base, f)
PY
}

sum_of() { sha256sum <"$1" | cut -d' ' -f1; }

# As one that was just made; its own word is put back, since the base may be older.
manifest=$VMTOOL_STATE/bases/default/current/base.json
cp "$manifest" "$WORK/base.json"
trap 'cp "$WORK/base.json" "$manifest"; end_supervisor; finish' EXIT
programs_of_base "$(sum_of "$VMTOOL_MACHINE")"

section "each thing is tried, and works"
doctor
for check in "machine tools" "machine space" "socket paths" ports "ssh key" base leftovers; do
	same "$check ($(field_of "$check" detail))" ok "$(field_of "$check" state)"
	same "for" machines "$(field_of "$check" for)"
done
contains "bases are named" "template of default" "$(field_of base detail)"

section "a probe machine boots: with KVM, or with TCG and said so"
case $(field_of kvm state) in
ok) contains "KVM" "a probe machine booted" "$(field_of kvm detail)" ;;
warning)
	contains "TCG" "booted with TCG" "$(field_of kvm detail)"
	contains "what it costs" "slower" "$(field_of kvm detail)"
	contains "the fix" "accept TCG" "$(field_of kvm fix)"
	;;
*) fail "no probe machine booted: $(field_of kvm detail)" ;;
esac

section "on the screen, each with its fix"
text=$(timeout 120 "$KBSUP" doctor) || true
contains "a mark" "✓ machine tools" "$text"
if [ "$(field_of reflink state)" = warning ]; then contains "a fix" "fix: nothing to do: a copied overlay" "$text"; fi

section "programs that are missing, or do not run"
mkdir "$WORK/bin"
printf '#!/bin/sh\nexit 7\n' >"$WORK/bin/qemu-img"
chmod +x "$WORK/bin/qemu-img"
doctor PATH="$WORK/bin:$PATH"
same "state" failed "$(field_of "machine tools" state)"
contains "which" "qemu-img failed (exit 7)" "$(field_of "machine tools" detail)"
contains "the fix" "qemu-utils" "$(field_of "machine tools" fix)"

section "machines that cannot run leave sessions be"
ok() { python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
print(d["ok"] == all(c["state"] != "failed" for c in d["checks"] if c["for"] == "sessions"))' "$WORK/doctor"; }
same "what 'ok' is about" True "$(ok)"

section "a QEMU that boots nothing"
printf '#!/bin/sh\nexit 1\n' >"$WORK/bin/qemu-system-x86_64"
chmod +x "$WORK/bin/qemu-system-x86_64"
doctor PATH="$WORK/bin:$PATH"
same "state" failed "$(field_of kvm state)"

section "a runtime directory with a long name"
long=$WORK/$(printf 'x%.0s' $(seq 70))
mkdir -m 700 "$long"
doctor XDG_RUNTIME_DIR="$long"
same "state" failed "$(field_of "socket paths" state)"
contains "the fix" "XDG_RUNTIME_DIR" "$(field_of "socket paths" fix)"

section "a base of another kbsup"
programs_of_base other
doctor
same "state" warning "$(field_of base state)"
contains "what" "of another kbsup" "$(field_of base detail)"
contains "the fix" "kbsup vm base create --name default" "$(field_of base fix)"
programs_of_base "$(sum_of "$VMTOOL_MACHINE")"

# What follows has a state of its own: the cache's stays whole.
export XDG_STATE_HOME=$WORK/state

section "no base yet"
doctor
same "state" warning "$(field_of base state)"
contains "the fix" "kbsup vm base create" "$(field_of base fix)"

section "a key that opens nothing, until the fix is carried out"
keys=$XDG_STATE_HOME/kbsup/vm/client_key
same "it was made" ok "$(field_of "ssh key" state)"
cp "$keys.pub" "$WORK/old.pub"
rm "$keys" "$keys.pub"
doctor
cp "$WORK/old.pub" "$keys.pub"
doctor
same "another one's public half" failed "$(field_of "ssh key" state)"
sh -c "$(field_of "ssh key" fix | cut -d: -f1)"
doctor
same "after the fix" ok "$(field_of "ssh key" state)"
chmod 644 "$keys"
doctor
contains "one that others read" "others may read" "$(field_of "ssh key" detail)"

section "what interrupted operations left goes"
touch "$XDG_STATE_HOME/kbsup/vm/disks/nobodys"
doctor
contains "said" ": 1 things" "$(field_of leftovers detail)"
same "gone" no "$([ -e "$XDG_STATE_HOME/kbsup/vm/disks/nobodys" ] && echo yes || echo no)"

section "a disk with no room"
if mkdir "$WORK/small" && mount -t tmpfs -o size=64m,mode=700 none "$WORK/small" 2>/dev/null; then
	doctor XDG_STATE_HOME="$WORK/small"
	umount -l "$WORK/small"
	same "state" failed "$(field_of "machine space" state)"
	contains "the fix" "free some space" "$(field_of "machine space" fix)"
else
	say "a small file system cannot be mounted here"
fi
