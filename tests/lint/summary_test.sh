#!/usr/bin/env bash
# tests/summary.py counts parts, fails when something failed, and never lets a silent skip or an empty
# run pass. usage: summary_test.sh SUMMARY.PY
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/meson-logs"
n=0
failed=0

check() { # what, expected last line, expected status, then the log from stdin
    local out status last
    cat >"$dir/meson-logs/testlog.json"
    out=$(python3 "$summary" "$dir")
    status=$?
    last=${out##*$'\n'}
    n=$((n + 1))
    if [ "$last" = "$2" ] && [ "$status" = "$3" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        echo "# status $status, said: $last"
        failed=1
    fi
}

summary=$1
echo 1..7
check 'whole programs' '2 passed, 0 failed, 0 skipped' 0 <<'END'
{"name": "a", "stdout": "hi", "result": "OK"}
{"name": "b", "result": "OK"}
END
check 'cmocka parts' '2 passed, 1 failed, 0 skipped' 1 <<'END'
{"name": "a", "stdout": "[       OK ] one\n[       OK ] two\n", "stderr": "[  FAILED  ] three\n[  FAILED  ] three\n", "result": "FAIL"}
END
check 'TAP parts and a skip with its reason' '1 passed, 0 failed, 1 skipped' 0 <<'END'
{"name": "a", "stdout": "1..2\nok 1 - one\nok 2 - two # SKIP no kernel for it\n", "result": "OK"}
END
check 'a skip without a reason is a failure' '1 passed, 1 failed, 0 skipped' 1 <<'END'
{"name": "a", "stdout": "1..2\nok 1 - one\nok 2 - two # SKIP\n", "result": "OK"}
END
check 'a program that dies after good parts fails' '1 passed, 1 failed, 0 skipped' 1 <<'END'
{"name": "a", "stdout": "1..2\nok 1 - one\n", "result": "ERROR"}
END
check 'a time-out fails' '0 passed, 1 failed, 0 skipped' 1 <<'END'
{"name": "a", "result": "TIMEOUT"}
END
check 'an empty run fails' '0 passed, 1 failed, 0 skipped' 1 </dev/null
exit $failed
