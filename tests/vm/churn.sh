#!/usr/bin/env bash
# Machines made and deleted with random kills in between: no process, file, lock or port remains.
. "${0%/*}/lib.sh"

rounds=${1:-12}
section "$rounds rounds of starts, kills and deletions leave nothing"
RANDOM=${SEED:-4711}
for i in $(seq "$rounds"); do
	nice -n 5 "$VMTOOL" start churn >/dev/null 2>&1 &
	op=$!
	sleep "0.$((RANDOM % 60 + 10))"
	case $((RANDOM % 3)) in
	0) kill -9 "$op" 2>/dev/null || true ;;
	1) kill -TERM "$op" 2>/dev/null || true ;;
	esac
	wait "$op" 2>/dev/null || true
	if [ $((RANDOM % 2)) -eq 0 ]; then
		pid=$(field churn pid)
		[ "${pid:-0}" -eq 0 ] || kill -9 "$pid" 2>/dev/null || true
	fi
	if [ -n "$(state churn)" ]; then
		vm delete churn || fail "round $i: it cannot be deleted"
	fi
done
sleep 11 # what an interrupted creation left is known as such after ten seconds
nothing_left
