#!/bin/bash
# The real programs of the agents, each in a session under its own preset: they say their version and
# their help, and come as far as they can without a network and an account. Whatever is denied on the
# way must be listed here with the reason why it is denied on purpose.
# KB_AGENTS: where their programs are; downloaded when missing.
here=$(cd "$(dirname "$0")" && pwd)
cache=${KB_AGENTS:-${1:?}/agents}
if [ ! -w "$cache" ] && [ -d "$cache" ]; then :; elif ! bash "$here/install.sh" "$cache" >&2; then
    echo '1..0 # SKIP npm could not install the agents'
    exit 0
fi
chmod a+rX "$cache"
# shellcheck source=tests/integration/lib.sh
. "$here/../integration/lib.sh"
KB_TIMEOUT=300

# agent, command, and a prompt given without a terminal: its start-up path
agents() {
    cat <<'LIST'
claude-code claude -p hello
codex codex exec --skip-git-repo-check hello
gemini-cli gemini -p hello
opencode opencode run hello
copilot-cli copilot -p hello
LIST
}


# Meant to be denied: io_uring passes no filter, there is no network but the loopback, git looks for
# passwords in ~/.netrc, and Codex tries whether it could confine its commands once more by itself.
no_unexpected_denials() { # session
    run kbsup audit query "$1" 'decision = denied and syscall != io_uring_setup and event != connect
        and event != send and not path ~ "**/.netrc" and not (comm = "bwrap" and syscall = clone)'
    expect_status 0
    case $out in *denied*) fail "denied to $1" ;; esac
}

says() { # agent, command, option, text in its output
    PATH=$cache/$1/node_modules/.bin:$PATH session --name "$1$3" --agent "$1" -- "$2" "$3"
    expect_status 0
    case $out$err in *"$4"*) ;; *) fail "the output lacks: $4" ;; esac
    no_unexpected_denials "$1$3"
}

# It fails for want of a network or an account, not of anything else: it neither is killed nor hangs.
starts() { # agent, command, words of a first prompt
    local agent=$1
    shift
    PATH=$cache/$agent/node_modules/.bin:$PATH
    export PATH
    run timeout -k 5 60 "$BIN/kbsup" run --workspace "$WS" --name "$agent-start" --agent "$agent" -- "$@"
    [ "$status" -lt 124 ] || [ "$status" = 124 ] || fail "ended by a signal: $status"
    run kbsup audit query "$agent-start" 'event = exec' --json
    [ -n "$out" ] || fail 'nothing was run'
    no_unexpected_denials "$agent-start"
}

# The set of what was denied to a session; names of processes and temporary files, which differ from one
# start to the next, as N.
denials() {
    kbsup audit query "$1" 'decision = denied' --json |
        json '["%s %s" % (r.get("syscall"), r.get("path") or r.get("host") or r.get("ip") or "") for r in L]' |
        sed 's/[0-9a-f-]\{4,\}/N/g' | sort -u
}

# What the start needed becomes a policy under which it starts again, and no more than that.
start_is_learned() { # agent, command, words of a first prompt
    local agent=$1 policy=$WORK/$1-learned.policy known what
    shift
    PATH=$cache/$agent/node_modules/.bin:$PATH
    export PATH
    run kbsup policy learn "$agent-start" --name "$agent-learned" -o "$policy"
    expect_status 0
    run kbsup policy check "$policy"
    expect_status 0
    run timeout -k 5 60 "$BIN/kbsup" run --workspace "$WS" --name "$agent-again" --agent "$agent" --policy "$policy" -- "$@"
    [ "$status" -lt 124 ] || [ "$status" = 124 ] || fail "ended by a signal: $status"
    expect_equal "$(comm -13 <(denials "$agent-start") <(denials "$agent-again"))" '' 'newly denied'
    # shellcheck disable=SC2016 # for the shell of the session
    run kbsup run --workspace "$WS" --name "$agent-astray" --agent "$agent" --policy "$policy" -- sh -c '
        cat ~/.ssh/id_ed25519; echo x >.git/hooks/pre-commit; cat "$1"' sh "$WORK/private"
    known=$(denials "$agent-astray")
    for what in .ssh/id_N .git/hooks/pre-commit private; do
        case $known in *"$what"*) ;; *) fail "not denied: $what" ;; esac
    done
}

mkdir -p "$HOME/.ssh" "$WS/.git/hooks"
echo key >"$HOME/.ssh/id_ed25519"
echo private >"$WORK/private"
while read -r agent command prompt; do
    tap "$agent: --version" says "$agent" "$command" --version .
    tap "$agent: --help" says "$agent" "$command" --help "$command"
    # shellcheck disable=SC2086 # words
    tap "$agent: starts" starts "$agent" "$command" $prompt
    # shellcheck disable=SC2086 # words
    tap "$agent: its start is learned" start_is_learned "$agent" "$command" $prompt
done < <(agents)
tap_end
