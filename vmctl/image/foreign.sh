#!/bin/sh
# usage: foreign.sh NAME MAGIC MASK EMULATOR COMMAND…: runs a command where programs of another
# architecture run, too. What the kernel is told about them is told within a user namespace, and
# ends with it. Runs as root, or as the root of a user namespace that maps all owners.
set -eu
name=$1 magic=$2 mask=$3 emulator=$4
shift 4
table=/proc/sys/fs/binfmt_misc

# shellcheck disable=SC2016 # the inner shell expands it
inner='
	set -eu
	table=$1 rule=$2
	shift 2
	mount -t binfmt_misc binfmt_misc "$table"
	printf "%s" "$rule" >"$table/register"
	exec "$@"
'
rule=":$name:M::$magic:$mask:$emulator:OF"
if [ "$(head -c 20 /proc/self/uid_map | tr -d ' ')" != 004294967295 ]; then
	exec sh -c "$inner" sh "$table" "$rule" "$@"
fi
# The real root: a namespace in which every owner is who it is outside.
fifo=$(mktemp -u)
mkfifo -m 600 "$fifo"
# shellcheck disable=SC2016
unshare --user --mount --pid --fork --kill-child -- sh -c '
	read -r _ <"$1"
	rm -f "$1"
	shift
	exec sh -c "$@"
' sh "$fifo" "$inner" sh "$table" "$rule" "$@" &
pid=$!
trap 'kill "$pid" 2>/dev/null' TERM INT
while [ "$(readlink "/proc/$pid/ns/user")" = "$(readlink /proc/self/ns/user)" ]; do
	sleep 0.1
done
echo '0 0 4294967295' >"/proc/$pid/uid_map"
echo '0 0 4294967295' >"/proc/$pid/gid_map"
echo go >"$fifo"
wait "$pid"
