#!/usr/bin/env bash
# The README's first command, from the build on: the demo's session builds its program, is refused
# twice, and the record names rule and line of both.
. "$(dirname "$0")/lib.sh"

demo_runs() {
    # The demo takes the programs where a build tree has them.
    run timeout 100 "$TESTS/demo/demo.sh" "$BUILD"
    cp "$WORK/stdout" "$WORK/demo.out"
    cp "$WORK/stderr" "$WORK/demo.err"
    expect_status 0
}

says() { # text that must be in the demo's output
    grep -qF -- "$1" "$WORK/demo.out" || fail "the demo's output lacks: $1"
}

builds() {
    says 'cc -o wordcount main.o table.o'
    says './wordcount'
}

letter_refused() {
    ! grep -q 'Dear Ada' "$WORK/demo.out" || fail 'the letter was read'
    # Lane notify says EACCES; in lane bpf there is only what the session's tree has.
    grep -Eq 'letter.txt: (Permission denied|No such file)' "$WORK/demo.err" || fail 'cat did not say so'
    grep -Eq 'denied open ~/letter.txt .*by demo.policy:3 +fs deny "~/letter.txt"' "$WORK/demo.out" ||
        fail 'the tree does not name the rule of the letter'
}

network_refused() {
    ! grep -q '^connected' "$WORK/demo.out" || fail 'the network was reached'
    grep -Eq 'denied connect 192.0.2.1:443 .*by base.policy:[0-9]+ +net default deny' "$WORK/demo.out" ||
        fail 'the tree does not name the rule of the network'
}

two_denials() {
    expect_equal "$(sed -n '/^\$ kbsup audit query/,/^$/p' "$WORK/demo.out" | grep -c '\.policy:')" 2 \
        'denials listed'
    says 'intact'
}

leaves_nothing() {
    ! ls -d "$TMPDIR"/kbsup-demo.* /tmp/kbsup-demo.* 2>/dev/null || fail 'a directory is left'
}

tap 'the demo runs to its end' demo_runs
tap 'the session builds and tests a C program' builds
tap 'it is refused a letter in the home directory, by a line of its policy' letter_refused
tap 'it is refused the network, by a line of the preset' network_refused
tap 'exactly these two denials are listed, and the record verifies' two_denials
tap 'it removes what it made' leaves_nothing
tap_end
