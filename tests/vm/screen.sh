#!/usr/bin/env bash
# A machine with a screen: what is on it, what its keyboard does, that it is there after a suspend.
. "${0%/*}/lib.sh"
. "${0%/*}/host.sh"
VM_LIMIT=300
look() { python3 "$tests/screen.py" "$(kb vm status pc --json | json 'd["screen"]')" "$@"; }
tests=$(cd "${0%/*}" && pwd)

# lit WHAT SIZE PIXELS: a picture with words on it; its size changes when the kernel's driver takes over
lit() {
	[[ $2 =~ ^[0-9]{3,4}x[0-9]{3,4}\ ([0-9]+)$ ]] || { fail "$1: $2" && return; }
	[ "${BASH_REMATCH[1]}" -gt 500 ] || fail "$1: it is dark: $2"
}

section "a machine gets its screen when it boots"
kb vm start pc --no-disk 2>/dev/null
same "none" None "$(kb vm status pc --json | json 'd["screen"]')"
refused "one that runs" "kbsup vm stop pc; kbsup vm start pc --gui" kb vm start pc --gui
kb vm stop --now pc
contains "where it is" "no desktop here; its screen is at $WORK" "$(env -u DISPLAY -u WAYLAND_DISPLAY timeout 300 "$KBSUP" vm start pc --gui 2>&1)"

section "its console is on it, and its keyboard types there"
for _ in $(seq 60); do
	[[ $(guest pc 'cat /dev/vcs1') != *login:* ]] || break
	sleep 1
done
contains "on the screen" "pc login:" "$(guest pc 'cat /dev/vcs1')"
lit "what is shown" "$(look keyboard)"
contains "what was typed" "login: keyboard" "$(guest pc 'cat /dev/vcs1')"

section "a window is opened on it where there is a desktop"
mkdir "$WORK/bin"
# shellcheck disable=SC2016 # the script expands
printf '#!/bin/sh\npython3 %s "$1" >%s 2>&1\n' "$tests/screen.py" "$WORK/window" >"$WORK/bin/vncviewer"
chmod +x "$WORK/bin/vncviewer"
contains "said" "vncviewer shows its screen" "$(PATH=$WORK/bin:$PATH DISPLAY=:9 kb vm start pc --gui 2>&1)"
for _ in $(seq 50); do [ ! -s "$WORK/window" ] || break; sleep 0.2; done
lit "what the window shows" "$(cat "$WORK/window")"
contains "no viewer" "apt-get install" "$(PATH=$WORK/none DISPLAY=:9 /usr/bin/timeout 60 "$KBSUP" vm start pc --gui 2>&1)"

section "it comes back with the machine, and a fork has its own"
before=$(guest pc 'cat /dev/vcs1')
kb vm suspend pc
kb vm resume pc 2>/dev/null
same "what stood on it" "$before" "$(guest pc 'cat /dev/vcs1')"
lit "after the resume" "$(look)"
kb vm fork pc pc2 2>/dev/null
[ "$(kb vm status pc2 --json | json 'd["screen"]')" != "$(kb vm status pc --json | json 'd["screen"]')" ] ||
	fail "two machines, one screen"
kb vm delete pc pc2
stop_supervisor
nothing_left
