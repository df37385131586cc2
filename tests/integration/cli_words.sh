#!/usr/bin/env bash
# The words of the command line: wrong ones, help, JSON, policies, agents, the audit verbs.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

# A usage error: status 2, one error with a remedy, nothing on standard output.
expect_usage() { # text of the error, text of the remedy
    expect_status 2
    expect_one_error
    expect_equal "$out" '' 'standard output'
    expect_equal "$(head -c 7 "$WORK/stderr")" 'kbsup: ' 'start of the error'
    expect_err "$1"
    expect_equal "$(sed -n 2p "$WORK/stderr" | cut -c1-2)" '  ' 'start of the remedy'
    expect_err "$2"
}

wrong_words() {
    run kbsup polcy list
    expect_usage "'polcy' is not a command" 'did you mean: kbsup policy'
    run kbsup policy lst
    expect_usage "'policy lst' is not a command" 'did you mean: kbsup policy list'
    run kbsup policy
    expect_usage "'policy' needs to be told what to do" 'list, show, check, compile,'
    run kbsup --json ps
    expect_usage "'--json' stands where a command belongs" 'kbsup COMMAND --json'
    run kbsup run --workspce .
    expect_usage "run has no option '--workspce'" 'did you mean: --workspace'
    run kbsup run ls
    expect_usage "run does not know what to do with 'ls'" 'kbsup run -- ls'
    run kbsup run --lane fast -- true
    expect_usage "'fast' is not a value of --lane" 'auto|bpf|notify'
    run kbsup run --name 'two words' -- true
    expect_usage "'two words' cannot be the name of a session" 'letters, digits'
    run kbsup run --name last -- true
    expect_usage "'last' cannot be the name" ''
    run kbsup run --env 1=2 --env NOT_SET_HERE -- true
    expect_usage '--env NOT_SET_HERE' 'NOT_SET_HERE=VALUE'
    run kbsup run --detach-keys ctrl-1 -- true
    expect_usage "'ctrl-1' is not a sequence of keys" 'ctrl-p,ctrl-q'
    run kbsup run --json -- true
    expect_usage '--json' '--detach'
    run kbsup exec
    expect_usage 'exec needs S' 'kbsup help exec'
    run kbsup exec here
    expect_usage 'exec needs a command' 'kbsup exec here -- COMMAND'
    run kbsup stop
    expect_usage 'stop needs S' ''
    run kbsup audit tree --around x
    expect_usage "'x' is not a whole number" '--around 100'
    run kbsup completion csh
    expect_usage "'csh' is not a value of SHELL" ''
    run kbsup policy compile shell --emit bdf
    expect_usage "'bdf' is not a value of --emit" 'did you mean: bpf'
    run kbsup policy compile shell --emit bpf --json
    expect_usage 'ask for two things' ''
}

foreign_bytes_in_words() {
    run kbsup "$(printf 'x\033]0;pwned\007\377')"
    expect_usage '\x1b]0;pwned\x07\xff' ''
    run kbsup policy show "$(printf 'a\nb')"
    expect_status 1
    expect_one_error
    expect_err 'a\nb'
}

no_command() {
    run kbsup
    expect_status 2
    expect_equal "$out" '' 'standard output'
    expect_err 'usage: kbsup COMMAND'
}

help_for_everything() {
    local verb
    run kbsup help
    expect_status 0
    expect_out 'audit verify'
    printf '%s\n' "$out" | sed -n 's/^  \([a-z][a-z ]*[a-z]\)  .*/\1/p' >"$WORK/verbs"
    [ "$(wc -l <"$WORK/verbs")" -ge 20 ] || fail 'help lists too few commands'
    while read -r verb; do
        # shellcheck disable=SC2086 # a verb is one word or two
        run kbsup $verb --help
        expect_status 0
        expect_out "usage: kbsup $verb"
        cp "$WORK/stdout" "$WORK/by-option"
        # shellcheck disable=SC2086
        run kbsup help $verb
        expect_status 0
        cmp "$WORK/stdout" "$WORK/by-option" || fail "help $verb and $verb --help differ"
    done <"$WORK/verbs"
    for verb in -h --help; do
        run kbsup "$verb"
        expect_status 0
        expect_out 'usage: kbsup COMMAND'
    done
    run kbsup policy --help
    expect_status 0
    expect_out 'kbsup policy COMMAND'
    run kbsup help vresion
    expect_status 2
    expect_err 'did you mean: kbsup version'
}

versions_agree() {
    run kbsup version
    expect_status 0
    expect_equal "kbsup $(kbsup version --json | json 'd["version"]')" "$out"
    run kbsup --version
    expect_equal "kbsup $(kbsup version --json | json 'd["version"]')" "$out"
}

json_of_offline_verbs() {
    expect_equal "$(kbsup policy list --json | json '[p["name"] for p in d if p["name"] == "shell"]')" shell
    expect_equal "$(kbsup agents --json | json '[a["source"] for a in d if a["name"] == "shell"]')" preset
    expect_equal "$(kbsup config show --json | json '[s["value"] for s in d if s["setting"] == "store"]')" \
        "$XDG_STATE_HOME/kbsup/store"
    expect_equal "$(kbsup policy show shell --effective --json | json 'd["policy"]')" shell
    expect_equal "$(kbsup policy show shell --effective --json | json 'all(r["file"] and r["line"] and r["text"] for r in d["rules"])')" True
    kbsup policy compile shell --json | json 'd' >/dev/null
    kbsup policy check shell --json | json 'd' >/dev/null
}

# A setting is what an option says that is not given: the option beats its variable, that the setting.
settings() {
    local file=$XDG_CONFIG_HOME/kbsup/config
    shown() { kbsup config show --json | json "[s['value'] + ' from ' + s['from'] for s in d if s['setting'] == '$1'][0]"; }
    mkdir -p "$XDG_CONFIG_HOME/kbsup"
    : >"$file"
    expect_equal "$(shown lane)" 'auto from default'
    expect_equal "$(shown pool)" '0 from default'
    printf '# what I want\n\n  lane = notify # the one\nruntime=none-such\ndetach-keys = ctrl-x\n' >"$file"
    expect_equal "$(shown lane)" "notify from $file"
    expect_equal "$(shown agent)" 'shell from default'
    expect_equal "$(KBSUP_DETACH_KEYS=ctrl-y shown detach-keys)" 'ctrl-y from KBSUP_DETACH_KEYS'
    run kbsup run --workspace "$WS" -- true
    expect_err 'none-such'
    [ "$status" -ne 0 ] || fail 'the runtime of the settings was not used'
    printf 'lane = notify\nagent = shell\n' >"$file"
    run kbsup run --workspace "$WS" -- true
    expect_status 0
    run kbsup run --workspace "$WS" --lane sideways -- true
    expect_status 2
    rm "$file"
}

broken_settings() {
    local file=$XDG_CONFIG_HOME/kbsup/config text said
    mkdir -p "$XDG_CONFIG_HOME/kbsup"
    run kbsup run --workspace "$WS" -- true
    expect_status 0
    while IFS='|' read -r text said; do
        printf '# first\n%b\n' "$text" >"$file"
        run kbsup run --workspace "$WS" -- true
        [ "$status" -ne 0 ] || fail "taken: $text"
        expect_err "$file:"
        expect_err "$said"
    done <<'EOF'
lnae = auto|did you mean: lane
lane = sideways|it is one of: auto
lane|missing its value
lane =|missing its value
= auto|missing its name
lane = auto\nlane = bpf|a second time
EOF
    # What takes no setting does not mind.
    run kbsup version
    expect_status 0
    run kbsup run --help
    expect_status 0
    rm "$file"
}

status_without_supervisor() {
    run kbsup status
    expect_status 3
    expect_out 'not running'
    run kbsup status --json
    expect_status 3
    expect_equal "$(json 'd["running"]' <"$WORK/stdout")" False
    [ ! -e "$XDG_RUNTIME_DIR/kbsup/control.sock" ] || fail 'status started a supervisor'
}

policies_of_ones_own() {
    mkdir -p "$XDG_CONFIG_HOME/kbsup"
    printf 'policy mine version 1 extends shell {\n    fs read "/srv" if-available\n}\n' \
        >"$XDG_CONFIG_HOME/kbsup/mine.policy"
    run kbsup policy list
    expect_out "$(printf 'mine\tuser\t')"
    run kbsup policy show mine
    cmp "$WORK/stdout" "$XDG_CONFIG_HOME/kbsup/mine.policy"
    run kbsup policy show mine --effective
    expect_status 0
    expect_out 'mine.policy:2'
    expect_out 'preset:base:'
    run kbsup policy show mne
    expect_status 1
    expect_one_error
    expect_err 'did you mean: mine'
    run kbsup run --agent mne -- true
    expect_status 1
    expect_one_error
    expect_err 'did you mean: mine'
}

mistakes_in_policies() {
    printf 'policy bad version 1 extends base {\n    fs raed "/usr"\n}\n' >"$WORK/bad.policy"
    run kbsup policy check shell "$WORK/bad.policy"
    expect_status 1
    expect_out 'bad.policy:2:8: error:'
    expect_out '^'
    expect_equal "$err" '' 'standard error'
    run kbsup policy check --json "$WORK/bad.policy"
    expect_status 1
    json 'd' <"$WORK/stdout" >/dev/null
    run kbsup policy compile "$WORK/bad.policy"
    expect_status 1
    expect_equal "$out" '' 'standard output'
    expect_err 'bad.policy:2:8: error:'
    run kbsup policy check "$WORK/gone.policy"
    expect_status 1
    expect_one_error
    run kbsup policy check shell
    expect_status 0
}

programs_for_the_kernel() {
    local arch
    for arch in x86_64 aarch64; do
        run kbsup policy compile shell --arch "$arch" --emit bpf
        expect_status 0
        # An array of struct sock_filter, 8 bytes each; the first loads the architecture.
        [ $(($(stat -c %s "$WORK/stdout") % 8)) -eq 0 ] || fail 'not whole instructions'
        expect_equal "$(head -c 8 "$WORK/stdout" | od -An -tx1 | tr -d ' ')" 2000000004000000
        run kbsup policy compile shell --arch "$arch" -o "$WORK/listing"
        expect_status 0
        grep -q 'base.policy:' "$WORK/listing"
    done
}

questions_to_policies() {
    run kbsup policy explain shell 'openat("/etc/shadow", O_RDWR)'
    expect_status 0
    expect_out 'denied (EACCES) by base.policy:'
    run kbsup policy explain shell connect example.org:443
    expect_out 'denied'
    expect_equal "$(kbsup policy explain shell ptrace --json | json 'd["decision"]')" denied
    run kbsup policy explain shell 'opne("/etc/shadow")'
    expect_status 2
    expect_one_error
    run kbsup policy diff base shell
    expect_out 'newly allowed'
    run kbsup policy diff base
    expect_usage 'policy diff needs B' ''
    run kbsup policy test claude-code
    expect_status 0
    expect_out ' 0 failed'
    printf 'policy liar version 1 extends shell {\n    test "no" { allow read "/etc/shadow" }\n}\n' \
        >"$WORK/liar.policy"
    run kbsup policy test "$WORK/liar.policy"
    expect_status 1
    run kbsup policy test --json shell claude-code
    expect_equal "$(json 'len(d)' <"$WORK/stdout")" 2
    run kbsup policy groups
    expect_out '@io_uring'
    kbsup policy groups --json | json 'd' >/dev/null
}

agents_and_what_they_run() {
    expect_equal "$(kbsup agents --json | json '[a["command"] for a in d if a["name"] == "claude-code"]')" \
        "['claude']"
    expect_equal "$(kbsup agents --json | json '[a for a in d if a["name"] == "base"]')" ''
    mkdir -p "$XDG_CONFIG_HOME/kbsup"
    printf 'policy robot version 1 extends shell {\n}\nagent robot {\n    command "sh" "-c" "echo I am robot"\n}\n' \
        >"$XDG_CONFIG_HOME/kbsup/robot.policy"
    expect_equal "$(kbsup run --agent robot)" 'I am robot'
    expect_equal "$(kbsup run --agent robot -- echo other)" other
    expect_equal "$(kbsup ps -a --json | json '[s["agent"] for s in d]')" "robot
robot"
}

audit_verbs() {
    local form
    kbsup run --name told -- sh -c 'echo x >x; rm x; cat /etc/shadow' 2>/dev/null || true
    run kbsup audit timeline told
    expect_out 'unlink'
    run kbsup audit stats
    expect_out 'records'
    run kbsup audit tree told
    expect_out 'rm x'
    for form in html md; do
        run kbsup audit report told --format "$form" -o "$WORK/report.$form"
        expect_status 0
        grep -q told "$WORK/report.$form"
    done
    for form in jsonl ocsf otlp; do
        kbsup audit export told --format "$form" | json 'len(L)' >/dev/null
    done
    run kbsup audit report told -o "$WORK/no/such/place"
    expect_status 1
    expect_one_error
    run kbsup audit query told 'decision = denied and event = open' --json
    expect_equal "$(json 'L[0]["path"]' <"$WORK/stdout")" /etc/shadow
    run kbsup audit query told 'evnt = open'
    expect_usage "no field 'evnt'" ''
    run kbsup audit query tld
    expect_status 1
    expect_one_error
    run kbsup audit verify all
    expect_status 0
    # Somebody who has read enough is not an error.
    kbsup audit export told 2>"$WORK/stderr" | head -n 1 >/dev/null
    expect_equal "$(cat "$WORK/stderr")" '' 'standard error'
}

doctor_proves() {
    run kbsup doctor
    expect_status 0
    expect_out 'session'
    run kbsup doctor --json
    expect_equal "$(json 'd["ok"]' <"$WORK/stdout")" True
    expect_equal "$(json '[c["name"] for c in d["checks"] if c["state"] == "failed" and c["for"] == "sessions"]' <"$WORK/stdout")" ''
}

output_that_cannot_be_written() {
    status=0
    kbsup policy show base >/dev/full 2>"$WORK/stderr" || status=$?
    expect_status 1
    expect_one_error
    grep -q 'No space left' "$WORK/stderr"
}

closed_descriptors() {
    status=0
    kbsup version <&- >&- 2>&- || status=$?
    expect_status 0
    status=0
    kbsup polcy >&- 2>&- || status=$?
    expect_status 2
}

tap 'wrong words: status 2, what and why, what to do' wrong_words
tap 'foreign bytes in words are escaped' foreign_bytes_in_words
tap 'no command at all' no_command
tap 'help for every command, the same both ways' help_for_everything
tap 'version' versions_agree
tap 'JSON of what needs no supervisor' json_of_offline_verbs
tap 'status says that none runs, and starts none' status_without_supervisor
tap "policies of one's own" policies_of_ones_own
tap 'mistakes in policies' mistakes_in_policies
tap 'compiled programs' programs_for_the_kernel
tap 'questions to policies' questions_to_policies
tap 'agents and what they run' agents_and_what_they_run
tap 'the audit verbs' audit_verbs
tap 'doctor' doctor_proves
tap "settings of one's own" settings
tap 'settings that are wrong' broken_settings
tap 'output that cannot be written is an error' output_that_cannot_be_written
tap 'closed standard descriptors' closed_descriptors
tap_end
