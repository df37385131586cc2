#!/bin/bash
# What an agent's block means for its session: where its program is found, what is kept for the next
# session, where it is told its limits, and what a policy in the workspace can do to it.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

# An agent "toy" whose program is a script under a prefix in the home directory, run by an
# interpreter from another prefix, as npm and nvm install them.
make_agent() {
    local pkg=$HOME/.prefix/lib/node_modules/toy
    mkdir -p "$HOME/.prefix/bin" "$pkg" "$HOME/.runtime/bin" "$HOME/.runtime/share"
    ln -s ../lib/node_modules/toy/main "$HOME/.prefix/bin/toy"
    # shellcheck disable=SC2016
    printf '#!/usr/bin/env toyrun\ncat "$(dirname "$0")/../lib/node_modules/toy/data"\n' >"$pkg/main"
    echo 'data of the package' >"$pkg/data"
    printf '#!/bin/sh\nexec sh "$@"\n' >"$HOME/.runtime/bin/toyrun"
    echo secret >"$HOME/.runtime/share/token"
    chmod +x "$pkg/main" "$HOME/.runtime/bin/toyrun"
    mkdir -p "$XDG_CONFIG_HOME/kbsup"
    cat >"$XDG_CONFIG_HOME/kbsup/toy.policy" <<'POLICY'
policy toy version 1 extends shell {
    fs keep "~/.toy"
}
agent toy {
    command "toy"
    package npm "toy-cli"
    rootfs "sh"
    context file "~/.toy/LIMITS.md"
}
POLICY
    export PATH=$HOME/.prefix/bin:$HOME/.runtime/bin:$PATH
}
make_agent

program_is_found() {
    session --agent toy
    expect_status 0
    expect_equal "$out" 'data of the package'
}

only_its_places_are_there() {
    # shellcheck disable=SC2016
    session --agent toy -- sh -c 'cat "$HOME/.runtime/share/token" 2>&1; ls -A "$HOME/.prefix"'
    expect_status 0
    case $out in *secret*) fail 'beside bin and lib something is given' ;; esac
    # shellcheck disable=SC2016
    session --agent toy -- toy
    expect_equal "$out" 'data of the package'
    # shellcheck disable=SC2016
    session --agent toy -- sh -c 'toy >/dev/null; echo x >"$(command -v toy)"'
    [ "$status" != 0 ] || fail 'the program can be changed'
}

missing_program_names_the_remedy() {
    PATH=/usr/bin:/bin run kbsup run --workspace "$WS" --agent toy
    expect_status 1
    expect_one_error
    expect_err 'npm install -g toy-cli'
}

kept_comes_back() {
    # shellcheck disable=SC2016
    session --agent toy -- sh -c 'echo one >>"$HOME/.toy/notes"; echo x >"$HOME/gone"'
    expect_status 0
    # shellcheck disable=SC2016
    session --agent toy -- sh -c 'cat "$HOME/.toy/notes"; ls -A "$HOME"'
    expect_status 0
    expect_out one
    case $out in *gone*) fail 'what is not kept came back' ;; esac
    [ ! -e "$HOME/.toy" ] || fail "the user's own home directory was written"
    [ -f "$XDG_STATE_HOME/kbsup/profiles/toy/~%2f.toy/notes" ] || fail 'not in the profile'
}

kept_is_the_agents_own() {
    printf 'policy other version 1 extends toy { }\nagent other { policy other }\n' \
        >"$XDG_CONFIG_HOME/kbsup/other.policy"
    # shellcheck disable=SC2016
    session --agent other -- sh -c 'ls "$HOME/.toy"'
    expect_status 0
    expect_equal "$out" '' "another agent's profile"
}

limits_are_told() {
    # shellcheck disable=SC2016
    session --name told --agent toy -- sh -c 'echo "$KBSUP_SESSION"; cat "$HOME/.toy/LIMITS.md"
        cmp "$KBSUP_FACTS" "$HOME/.toy/LIMITS.md" && echo same; echo x >"$HOME/.toy/LIMITS.md" || echo fixed'
    expect_status 0
    expect_out told
    expect_out 'session: told'
    expect_out 'kept for your next session'
    expect_out same
    expect_out fixed
}

tap 'a program under a prefix in the home directory is found and runs' program_is_found
tap 'of its prefix only bin and lib are there, read-only' only_its_places_are_there
tap 'a program that is not installed is an error with the way to install it' missing_program_names_the_remedy
tap 'what is kept comes back, and nothing else' kept_comes_back
tap 'what is kept belongs to one agent' kept_is_the_agents_own
tap 'the agent is told its limits where it looks, and cannot change them' limits_are_told
tap_end
