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

workspace_policy_tightens() {
    echo KEY=1 >"$WS/secret.txt"
    printf 'policy ours version 1 {\n    workspace hide "secret.txt"\n    limit open-files 99\n}\n' >"$WS/.kbsup.policy"
    session -- sh -c 'cat secret.txt || echo hidden; ulimit -n; rm -f .kbsup.policy; echo "policy x { }" >.kbsup.policy'
    expect_out hidden
    expect_out 99
    grep -q 'workspace hide' "$WS/.kbsup.policy" || fail 'the agent changed the policy that binds it'
    session --agent toy
    expect_status 0
}

hostile_workspace_policy() { # line of the policy
    printf 'policy ours version 1 {\n    %s\n}\n' "$1" >"$WS/.kbsup.policy"
    session -- true
    [ "$status" != 0 ] || fail "accepted: $1"
    expect_err '.kbsup.policy:2:'
    expect_err 'can only take away'
}

odd_workspace_policy() {
    rm -f "$WS/.kbsup.policy"
    ln -s /etc/passwd "$WS/.kbsup.policy"
    session -- true
    expect_status 4
    expect_one_error
    expect_err 'not a plain file'
    rm "$WS/.kbsup.policy"
    mkfifo "$WS/.kbsup.policy"
    session -- true
    expect_status 4
    rm "$WS/.kbsup.policy"
}

groups_come_from_the_user() {
    rm -f "$WS/.kbsup.policy"
    printf 'registry=https://npm.mine.example:8443/x\n' >"$HOME/.npmrc"
    printf 'registry=https://evil.example/\n' >"$WS/.npmrc"
    run kbsup policy groups --json
    expect_status 0
    expect_equal "$(json '[h["hosts"] + [h["from"]] for h in d["hosts"] if h["group"] == "@npm-registry"]' <"$WORK/stdout")" \
        "['npm.mine.example:8443', '$HOME/.npmrc']"
    run kbsup policy groups
    expect_out 'npm.mine.example:8443'
    case $out in *evil*) fail "the workspace's file was asked" ;; esac
    rm "$HOME/.npmrc" "$WS/.npmrc"
}

unknown_hosts_refuse() {
    printf 'policy p version 1 extends shell {\n    net connect tcp @cargo-registry\n}\n' >"$WORK/p.policy"
    session --policy "$WORK/p.policy" -- true
    [ "$status" != 0 ] || fail 'a group without hosts was accepted'
    expect_err 'p.policy:2:'
    expect_err 'hosts @cargo-registry'
    sed -i 's/@cargo-registry$/@cargo-registry if-available/' "$WORK/p.policy"
    session --policy "$WORK/p.policy" -- true
    expect_status 0
    sed -i 's/.*cargo.*/    net deny @cargo-registry if-available/' "$WORK/p.policy"
    session --policy "$WORK/p.policy" -- true
    [ "$status" != 0 ] || fail 'a deny that covers nobody was accepted'
}

tap 'groups of hosts come from the files of the user, not of the workspace' groups_come_from_the_user
tap 'hosts that cannot be told refuse the session, with the remedy' unknown_hosts_refuse
tap 'a program under a prefix in the home directory is found and runs' program_is_found
tap 'of its prefix only bin and lib are there, read-only' only_its_places_are_there
tap 'a program that is not installed is an error with the way to install it' missing_program_names_the_remedy
tap 'what is kept comes back, and nothing else' kept_comes_back
tap 'what is kept belongs to one agent' kept_is_the_agents_own
tap 'the agent is told its limits where it looks, and cannot change them' limits_are_told
tap "a workspace's policy tightens, and the agent cannot change it" workspace_policy_tightens
tap "a workspace's policy gives nothing to read" hostile_workspace_policy 'fs read "/srv"'
tap "a workspace's policy opens no network" hostile_workspace_policy 'net connect any'
tap "a workspace's policy sets no variable" hostile_workspace_policy 'let X "/"'
tap "a workspace's policy overrides nothing" hostile_workspace_policy 'group @mount allow override reason "x"'
tap "what is not a plain file is no workspace's policy" odd_workspace_policy
tap_end
