#!/usr/bin/env bash
# Completion in real shells: what each offers for the words so far.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

export PATH=$BIN:$PATH

# As bash itself would call the script's function. compopt only works inside of a real completion.
cat >"$WORK/drive.bash" <<'END'
compopt() { :; }
source <(kbsup completion bash)
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_kbsup
printf '%s\n' "${COMPREPLY[@]}"
END

offered_by_bash() {
    bash --norc "$WORK/drive.bash" kbsup "$@" 2>&1 | sort | tr '\n' ' ' | sed 's/ $//'
}

bash_offers() {
    expect_equal "$(offered_by_bash pol)" policy
    expect_equal "$(offered_by_bash policy c)" 'check compile'
    expect_equal "$(offered_by_bash run --lan)" --lane
    expect_equal "$(offered_by_bash run --lane '')" 'auto bpf notify'
    expect_equal "$(offered_by_bash vm base create --arch '')" 'aarch64 x86_64'
    expect_equal "$(offered_by_bash run --agent she)" shell
    expect_equal "$(offered_by_bash run -a she)" shell
    expect_equal "$(offered_by_bash run --local --na)" --name
    expect_equal "$(offered_by_bash run --env XDG_STATE_H)" XDG_STATE_HOME
    expect_equal "$(offered_by_bash policy compile --emit = d)" disasm
    expect_equal "$(offered_by_bash completion '')" 'bash fish zsh'
    expect_equal "$(offered_by_bash audit tree '')" 'all last'
    expect_equal "$(offered_by_bash audit query last deci)" decision
    expect_equal "$(offered_by_bash audit query last event = open and pa)" 'path path2'
    expect_equal "$(offered_by_bash audit query last event = unl)" unlink
    expect_equal "$(offered_by_bash audit query last event = open an)" and
    expect_equal "$(offered_by_bash audit query decision = de)" denied
    expect_equal "$(offered_by_bash audit query errno = EACC)" EACCES
    expect_equal "$(offered_by_bash audit query flags '~' O_CRE)" O_CREAT
    expect_equal "$(offered_by_bash audit query syscall = unlinka)" unlinkat
    expect_equal "$(offered_by_bash audit query session = la)" last
    expect_equal "$(offered_by_bash run -- mkdi | tr ' ' '\n' | grep -x mkdir | head -1)" mkdir
    mkdir "$WS/sub"
    touch "$WS/one.policy" "$WS/two.txt"
    expect_equal "$(offered_by_bash run --policy one)" one.policy
    expect_equal "$(offered_by_bash policy compile -o tw)" two.txt
    expect_equal "$(offered_by_bash run --workspace s)" sub
}

fish_offers() {
    command -v fish >/dev/null || skip 'fish is not installed'
    kbsup completion fish >"$WORK/kbsup.fish"
    fish --no-config -c "source $WORK/kbsup.fish; complete -C 'kbsup pol'" >"$WORK/stdout" 2>&1
    grep -q '^policy	' "$WORK/stdout" || fail 'policy is not offered'
    fish --no-config -c "source $WORK/kbsup.fish; complete -C 'kbsup run --lane '" >"$WORK/stdout" 2>&1
    expect_equal "$(cut -f1 "$WORK/stdout" | sort | tr '\n' ' ')" 'auto bpf notify '
    fish --no-config -c "source $WORK/kbsup.fish; complete -C 'kbsup run --agent she'" >"$WORK/stdout" 2>&1
    expect_equal "$(cut -f1 "$WORK/stdout")" shell
    fish --no-config -c "source $WORK/kbsup.fish; complete -C 'kbsup audit query last event = unl'" >"$WORK/stdout" 2>&1
    expect_equal "$(cut -f1 "$WORK/stdout")" unlink
}

zsh_offers() {
    command -v zsh >/dev/null || skip 'zsh is not installed'
    kbsup completion zsh >"$WORK/_kbsup"
    zsh -n "$WORK/_kbsup"
    # The function is found by its first line, as compinit finds it.
    # shellcheck disable=SC2016 # zsh expands
    zsh -f -c 'fpath=('"$WORK"' $fpath); autoload -Uz compinit; compinit -D -u
        print -r -- $_comps[kbsup]' >"$WORK/stdout" 2>&1
    expect_equal "$(tail -n 1 "$WORK/stdout")" _kbsup
}

nothing_is_started() {
    kbsup __complete session >"$WORK/stdout" 2>"$WORK/stderr"
    expect_equal "$(cat "$WORK/stderr")" '' 'standard error'
    [ ! -e "$XDG_RUNTIME_DIR/kbsup/control.sock" ] || fail 'completion started a supervisor'
}

help_names_every_field() {
    local help field
    help=$(kbsup audit query --help | tr -s ' \n' ' ')
    for field in $(kbsup __complete field '' | cut -f1 | grep -vx not); do
        case "${help#*Fields:}" in
        *" $field "* | *" $field."*) ;;
        *) fail "the help of audit query does not name $field" ;;
        esac
    done
}

tap 'bash' bash_offers
tap 'fish' fish_offers
tap 'zsh' zsh_offers
tap 'live names start no supervisor' nothing_is_started
tap 'help and completion know the same fields' help_names_every_field
tap_end
