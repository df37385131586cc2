#!/usr/bin/env bash
# The corpus replayer fails on an empty corpus, names the input a target crashed or hung on, and
# passes otherwise. usage: selftest.sh REPLAY_MAIN.C CC [CC-ARGS…]
set -u
replay=$1
shift
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/empty" "$dir/good" "$dir/bad" "$dir/slow"
printf 'L' >"$dir/slow/the-endless-one"
printf 'harmless' >"$dir/good/one"
printf 'harmless' >"$dir/bad/a-good-one"
printf 'B' >"$dir/bad/the-bad-one"

cat >"$dir/target.c" <<'END'
#include <stdint.h>
#include <stdlib.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 1 && data[0] == 'B')
		abort();
	while (size == 1 && data[0] == 'L')
		;
	return 0;
}
END
"$@" -D_GNU_SOURCE -DINPUT_SECONDS=1 -o "$dir/replay" "$dir/target.c" "$replay" || exit 1

failed=0
expect() { # what it shows, status test, text that must appear
    local status out verdict=pass
    out=$("$dir/replay" "$4" 0 2>&1)
    status=$?
    [ $status -eq 0 ] || verdict=fail
    case $verdict:$out in "$2:"*"$3"*)
        echo "ok $1"
        return
        ;;
    esac
    echo "not ok $1: status $status, said: $out"
    failed=1
}
expect 'a harmless corpus passes and is counted' pass 'replayed 1 inputs' "$dir/good"
expect 'an empty corpus fails' fail 'holds no input' "$dir/empty"
expect 'a missing corpus fails' fail 'No such file' "$dir/missing"
expect 'a crash names its input' fail 'died on the-bad-one' "$dir/bad"
expect 'an endless run names its input' fail 'died on the-endless-one' "$dir/slow"
exit $failed
