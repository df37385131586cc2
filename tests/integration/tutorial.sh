#!/usr/bin/env bash
# The steps of kbsup-policy(7), typed as they stand there.
. "$(dirname "$0")/lib.sh"

works_as_written() {
    PATH=$BIN:$PATH "$TESTS/integration/tutorial.py" "$1" >"$WORK/steps" || fail "$(grep -v '^ok' "$WORK/steps")"
    [ "$(grep -c '^ok' "$WORK/steps")" -ge 20 ] || fail 'most of the steps were not found'
}

# The comparison itself: a page that says something else.
other_words_are_noticed() {
    sed 's/^{"price": 3}$/{"price": 4}/' "$1" >"$WORK/other.scd"
    ! PATH=$BIN:$PATH "$TESTS/integration/tutorial.py" "$WORK/other.scd" >"$WORK/steps" || fail 'nothing was noticed'
    expect_equal "$(grep -c '^not ok' "$WORK/steps")" 3 'steps that differ'
}

PAGE=$TESTS/integration/kbsup-policy.7.scd
[ -e "$PAGE" ] || PAGE=$TESTS/../supervisor/man/kbsup-policy.7.scd
chmod 700 "$HOME"
mkdir "$HOME/.config" && XDG_CONFIG_HOME=$HOME/.config
tap 'every step does what the page says' works_as_written "$PAGE"
tap 'a step that says something else is noticed' other_words_are_noticed "$PAGE"
tap_end
