#!/usr/bin/env bash
# `kbsup disk` as people and programs use it: the passphrase by terminal and by descriptor, the
# settings, and what starting and resuming a machine does.
. "${0%/*}/lib.sh"

export XDG_STATE_HOME=$VM_CACHE XDG_RUNTIME_DIR=$WORK XDG_CONFIG_HOME=$WORK/config HOME=$WORK
kb() { timeout "${VM_LIMIT:-120}" nice -n 5 "$KBSUP" "$@"; }
json() { python3 -c "import json,sys; d=json.load(sys.stdin); print($1)"; }
disk_of() { kb disk list --json | json "' '.join(str(i[k]) for i in d if i['name'] == '$1' for k in ('state', 'machine'))"; }
disk() { disk_of projects; }
# typed COMMAND… <SCRIPT
typed() { timeout "${VM_LIMIT:-120}" python3 "${0%/*}/typing.py" "$@"; }
status=0
# ends WANTED COMMAND…: its output, and it ends with that status
ends() {
	local wanted=$1
	shift
	status=0
	out=$("$@" 2>&1) || status=$?
	[ "$status" -eq "$wanted" ] || fail "$*: ended with $status, not $wanted: $out"
}
mkdir -p "$XDG_CONFIG_HOME/kbsup"

section "creating on a terminal"
ends 2 typed "$KBSUP" disk create --size 64M <<'KEYS'
expect New passphrase of disk projects:
secret one
expect Once more
secret another
expect not the same
KEYS
same "nothing was made" "[]" "$(kb disk list --json | json d)"
ends 1 typed "$KBSUP" disk create --size 64M <<'KEYS'
expect New passphrase
key c
expect no passphrase was given
KEYS
ends 0 typed "$KBSUP" disk create --size 64M --mount /srv/work <<'KEYS'
expect New passphrase of disk projects:
secret über pass
expect Once more
secret über pass
expect disk projects made
KEYS
case $out in *pass\ *über* | *"über pass"*) fail "what was typed is shown: $out" ;; esac
same "listed" "projects detached /srv/work 67108864" \
	"$(kb disk list --json | json "' '.join(str(d[0][k]) for k in ('name', 'state', 'mount', 'bytes'))")"
same "for people" projects "$(kb disk list | cut -f1)"
same "completion" projects "$(kb __complete disk | cut -f1)"
refused "the same again, before anybody types" "there is a disk projects already" kb disk create
refused "a wrong verb" "did you mean: kbsup disk attach" kb disk atach m

section "attaching"
kb vm start m 2>/dev/null
refused "without a terminal" "there is no terminal" setsid "$KBSUP" disk attach m
refused "a descriptor that is not open" "no descriptor" kb disk attach m --passphrase-fd 77
refused "an empty one" "no passphrase was given" kb disk attach m --passphrase-fd 0 </dev/null
refused "wrong, by descriptor" "wrong passphrase" kb disk attach m --passphrase-fd 3 3<<<'nope'
refused "an unknown machine, before anybody types" "there is no machine none" kb disk attach none
refused "an unknown disk" "there is no disk other" kb disk attach m other
ends 0 typed "$KBSUP" disk attach m <<'KEYS'
expect Passphrase of disk projects:
secret nope
expect wrong passphrase
secret über pass
expect at /srv/work in m
KEYS
same "attached" "attached m" "$(disk)"
contains "vm list" '"projects"' "$(kb vm list --json)"
contains "vm status" "disk projects" "$(kb vm status m)"
contains "its figures" total "$(kb disk list --json | json "d[0]['live']")"
guest m 'echo mine >/srv/work/file'
ends 1 kb disk delete --yes projects
contains "not while it is in use" "in use by machine m" "$out"

section "another passphrase, while it is attached"
refused "the old one is wrong" "wrong passphrase" \
	kb disk passphrase --passphrase-fd 3 --new-passphrase-fd 4 3<<<x 4<<<new
printf 'über pass\nneu\n' | kb disk passphrase --passphrase-fd 0 --new-passphrase-fd 0
kb disk detach
same "detached" "detached m" "$(disk)"
refused "the old one" "wrong passphrase" kb disk attach m --passphrase-fd 3 3<<<'über pass'
kb disk attach m --passphrase-fd 3 3<<<neu 2>/dev/null
same "the same disk" mine "$(guest m 'cat /srv/work/file')"

section "suspend and resume"
kb vm suspend m
same "taken away" "detached m" "$(disk)"
contains "no terminal: said" "kbsup disk attach m projects" "$(setsid "$KBSUP" vm resume m 2>&1)"
same "and not attached" "detached m" "$(disk)"
kb vm suspend m
ends 0 typed "$KBSUP" vm resume m <<'KEYS'
expect resumed
expect Passphrase of disk projects:
secret neu
expect at /srv/work in m
KEYS
same "attached" "attached m" "$(disk)"
kb vm suspend m
kb vm resume m --no-disk 2>/dev/null
same "not when so told" "detached m" "$(disk)"
kb disk detach
contains "not wanted any more" False "$(kb disk list --json | json "d[0]['wanted']")"

section "settings"
kb vm start n 2>/dev/null
same "none by itself" "detached m" "$(disk)"
printf 'disk = projects\ndisk-place = /srv/other\n' >"$XDG_CONFIG_HOME/kbsup/config"
same "shown, with the file" "projects $XDG_CONFIG_HOME/kbsup/config" \
	"$(kb config show --json | json "' '.join(x[k] for x in d if x['setting'] == 'disk' for k in ('value', 'from'))")"
kb vm start n --passphrase-fd 3 3<<<neu 2>/dev/null
same "attached by a start" "attached n" "$(disk)"
contains "left to who has it" "in use by machine n" "$(kb vm start m 2>&1)"
kb disk detach
ends 0 typed "$KBSUP" vm start n <<'KEYS'
expect Passphrase of disk projects:
key c
expect is not attached: no passphrase was given
KEYS
same "the machine runs on" running "$(state n)"
kb disk create d2 --size 64M --passphrase-fd 3 3<<<x 2>/dev/null
same "disk-place is for the one that is named" /mnt/d2 "$(kb disk list --json | json "d[0]['mount']")"
kb disk create d3 --size 64M --mount /srv/d3 --passphrase-fd 3 3<<<x 2>/dev/null
same "and an option beats it" /srv/d3 "$(kb disk list --json | json "d[1]['mount']")"
kb disk delete --yes d3
printf 'dsik = projects\n' >"$XDG_CONFIG_HOME/kbsup/config"
refused "a mistake" "did you mean: disk" kb vm start n
rm "$XDG_CONFIG_HOME/kbsup/config"

section "asked for by a start"
kb vm start n --disk projects --passphrase-fd 3 3<<<neu 2>/dev/null
same "attached" "attached n" "$(disk)"
refused "not had: the start fails" "in use by machine n" kb vm start m --disk projects
same "though the machine runs" running "$(state m)"
kb disk detach
refused "a wrong passphrase, too" "wrong passphrase" kb vm start n --disk projects --passphrase-fd 3 3<<<x
refused "one that is not there" "there is no disk other" kb vm start n --disk other

section "deleting"
ends 4 kb disk delete d2 </dev/null
contains "not without a word" "disk delete --yes d2" "$out"
ends 4 typed "$KBSUP" disk delete d2 <<'KEYS'
expect Type its name
type d3
expect was not deleted
KEYS
ends 0 typed "$KBSUP" disk delete d2 <<'KEYS'
expect Type its name
type d2
KEYS
same "gone" projects "$(kb disk list | cut -f1)"
kb vm delete m n
kb disk delete --yes projects
nothing_left
