#!/usr/bin/env bash
# A session on a terminal, as a person sees it: tmux is the terminal.
# shellcheck disable=SC2016 # what stands in single quotes is for other shells
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

command -v tmux >/dev/null || skip_all 'tmux is not installed'

stage=

tm() {
    tmux -S "$stage" -f /dev/null "$@"
}

screen() {
    tm capture-pane -p -t main | sed 's/[[:space:]]*$//' | grep .
}

shows() { # text
    screen | grep -qF -- "$1"
}

see() { # text: within 20 s
    wait_until 20 shows "$1" || {
        echo "the screen lacks: $1"
        screen
        return 1
    }
}

type_line() {
    tm send-keys -t main -l "$1"
    tm send-keys -t main Enter
}

end_stage() {
    [ -z "$stage" ] || tm kill-server 2>/dev/null || true
    stage=
}

stages=0

# A fresh shell on a fresh screen, with a server of its own: one that is going is never met again.
fresh() {
    end_stage
    stages=$((stages + 1))
    stage=$WORK/tmux.$BASHPID.$stages
    echo "PS1='stage> '; unset HISTFILE" >"$WORK/stage.rc"
    env -u TMUX PATH="$BIN:$PATH" TERM=xterm-256color \
        tmux -S "$stage" -f /dev/null new-session -d -s main -x 160 -y 30 \
        "exec bash --noprofile --rcfile '$WORK/stage.rc' -i"
    see 'stage>'
    stty_before=$(stage_settings)
}

# What the stage's terminal is set to.
stage_settings() {
    stty -a -F "$(tm display-message -p -t main '#{pane_tty}')" | sed 's|rows [0-9]*; columns [0-9]*; ||'
}

same_settings() {
    [ "$(stage_settings)" = "$stty_before" ]
}

restored() {
    wait_until 5 same_settings || {
        echo 'the terminal was not put back'
        diff <(echo "$stty_before") <(stage_settings)
        return 1
    }
}

opening_and_closing() {
    fresh
    type_line 'kbsup run --name calm -- sh -c "echo in session; exit 3"; echo status $?'
    see 'status 3'
    see 'kbsup: session calm on local · policy shell'
    see 'writable · network: none'
    see 'in session'
    see 'kbsup: session calm ended after'
    see 'exit 3'
    restored
    end_stage
}

denials_at_the_end() {
    mkdir -p "$HOME/.ssh"
    echo key >"$HOME/.ssh/id_ed25519"
    fresh
    type_line 'kbsup run --name nosy -- sh -c "cat ~/.ssh/id_ed25519; cat ~/.ssh/id_ed25519; true"; echo status $?'
    see 'status 0'
    see 'denied  open ~/.ssh/id_ed25519 (read)'
    see '← sh('
    see 'by base.policy:'
    see 'fs read "~/.ssh/id_ed25519" override reason'
    see '2 ×'
    # The line that is offered does what it says.
    printf 'policy wider version 1 extends shell {\n    fs read "~/.ssh/id_ed25519" override reason "test"\n}\n' \
        >"$WORK/wider.policy"
    expect_equal "$(kbsup run --policy "$WORK/wider.policy" -- sh -c 'cat ~/.ssh/id_ed25519')" key
    end_stage
}

# A rule that asks: a screen of its own, then the session's is back; both on the plain and on the
# alternate screen.
questions() {
    printf 'policy asks version 1 extends shell {\n    syscall getpriority ask "be nice?" override\n}\n' \
        >"$WORK/asks.policy"
    cat >"$WS/ask.py" <<'END'
import os, sys
sys.stdout.write(sys.argv[1] + "before\n")
sys.stdout.flush()
try:
    os.getpriority(os.PRIO_PROCESS, 0)
    print("it went", "through")
except OSError:
    print("it was", "refused")
END
    fresh
    type_line "kbsup run -q --policy $WORK/asks.policy -- sh -c '/usr/bin/python3 ask.py \"\"; /usr/bin/python3 ask.py \"\"; tty >/dev/null && read -r x && echo got \$x'; echo status \$?"
    see 'waits for your answer (1)'
    see 'be nice?'
    ! shows 'before' || fail "the question is on the session's own screen"
    type_line 'perhaps'
    see 'One of the letters above'
    type_line 'o'
    # The session's own screen is back only until the second question, if that long: it is looked at
    # after that.
    see 'waits for your answer (2)'
    type_line 'd'
    see 'it was refused'
    shows 'it went through' || fail "the session's screen is not back"
    type_line 'typed'
    see 'got typed'
    see 'status 0'
    restored
    type_line "clear; kbsup run -q --policy $WORK/asks.policy -- /usr/bin/python3 ask.py \$'\\033[?1049h'; echo status \$?"
    see 'waits for your answer (1)'
    type_line 'o'
    see 'status 0'
    restored
    end_stage
}

quiet_when_asked() {
    fresh
    type_line 'kbsup run -q -- echo hello; echo status $?'
    see 'status 0'
    ! shows 'kbsup: session' || fail 'kbsup spoke'
    end_stage
}

a_shell_with_job_control() {
    fresh
    type_line 'kbsup run -q -- bash'
    type_line 'echo "inside $KBSUP_SESSION $(tty) $TERM" | sed s/inside/really/'
    see 'really '
    type_line 'n=0; PROMPT_COMMAND="echo prompt \$((++n))"'
    see 'prompt 1'
    type_line 'sh -c "echo in \"\"front; exec sleep 60"'
    see 'in front'
    tm send-keys -t main C-z
    see 'Stopped'
    type_line 'jobs | sed s/Stopped/halted/; kill %1; wait; echo $((40 + 2))'
    see 'halted'
    see '42'
    see 'prompt 3'
    type_line 'sh -c "echo now \"\"cat; exec cat"'
    see 'now cat'
    tm send-keys -t main C-c
    see 'prompt 4' # what is typed before the shell has the terminal again is cat's to lose
    type_line 'echo $((50 + 5))'
    see '55'
    tm send-keys -t main C-d
    restored
    type_line 'echo back $((70 + 7))'
    see 'back 77'
    end_stage
}

resizing() {
    fresh
    type_line 'kbsup run -q -- bash -c "stty size; trap \"stty size\" WINCH; while :; do sleep 0.1; done"'
    see "30 160"
    tm resize-window -t main -x 90 -y 25
    see '25 90'
    tm send-keys -t main C-c
    restored
    end_stage
}

detaching_and_attaching() {
    fresh
    type_line 'kbsup run --name away -- bash'
    see 'kbsup: session away'
    type_line 'export MARK=still-here'
    sleep 0.5
    tm send-keys -t main C-p C-q
    see 'kbsup: session away runs on'
    restored
    type_line 'clear'
    type_line 'kbsup attach away'
    type_line 'echo $MARK | tr a-z A-Z'
    see 'STILL-HERE'
    tm send-keys -t main C-d
    see 'kbsup: session away ended'
    restored
    end_stage
}

a_lone_detach_key_passes() {
    fresh
    type_line 'kbsup run -q -- sh -c "stty raw -echo; dd bs=1 count=1 2>/dev/null | od -An -tx1"'
    sleep 1.5
    tm send-keys -t main C-p
    see ' 10'
    restored
    end_stage
}

keys_of_ones_own() {
    fresh
    type_line 'kbsup run -q --name mykeys --detach-keys "ctrl-],d" -- bash'
    sleep 1.5
    tm send-keys -t main C-p C-q
    type_line 'echo $((60 + 6))'
    see '66'
    tm send-keys -t main C-] d
    restored
    type_line 'kbsup stop --now mykeys; echo status $?'
    see 'status 0'
    end_stage
}

modes_are_undone() {
    fresh
    type_line 'echo before the show'
    type_line 'kbsup run -q --name show -- sh -c "printf \"\033[?1049h\033[?25l\"; echo on st\"\"age; sleep 60"'
    see 'on stage'
    ! shows 'before the show' || fail 'the session has no screen of its own'
    tm send-keys -t main C-p C-q
    see 'before the show'
    expect_equal "$(tm display-message -p -t main '#{alternate_on}#{cursor_flag}')" 01 'screen and cursor'
    type_line 'kbsup stop --now show'
    restored
    end_stage
}

killed_while_raw() {
    fresh
    type_line 'kbsup run --name doomed -- sleep 60'
    see 'kbsup: session doomed'
    type_line 'typed ahead'
    kill -SEGV "$(pgrep -u "$(id -u)" -f "^$BIN/kbsup run --name doomed|^kbsup run --name doomed")"
    restored
    end_stage
}

the_terminal_goes_away() {
    fresh
    type_line 'kbsup run --name orphan -- sh -c "trap \"echo hung >hung; exit\" HUP; while :; do sleep 0.1; done"'
    see 'kbsup: session orphan'
    sleep 0.5
    tm kill-server
    wait_until 20 test -e hung || fail 'the command was not told'
    gone() { [ "$(kbsup ps --json | json 'len([s for s in d if s["name"] == "orphan"])')" = 0 ]; }
    wait_until 20 gone || fail 'the session stayed'
}

stopped_from_outside() {
    fresh
    type_line 'kbsup run --name nap -- sh -c "echo up; read x; echo got \$x"'
    see 'up'
    kill -TSTP "$(pgrep -u "$(id -u)" -f "^$BIN/kbsup run --name nap|^kbsup run --name nap")"
    see 'Stopped'
    restored
    type_line 'fg'
    type_line 'morning'
    see 'got morning'
    end_stage
}

exec_on_a_terminal() {
    kbsup run --detach --name host -- sleep 60 >/dev/null
    fresh
    type_line 'kbsup exec host -- sh -c "tty; echo \$\$ done"; echo status $?'
    see 'status 0'
    see '/dev/pts/'
    restored
    type_line 'kbsup ps'
    see 'SESSION'
    see 'running'
    type_line 'clear; kbsup stop --now host; echo status $?'
    see 'kbsup: session host stopped'
    end_stage
}

tap 'a rule that asks has a screen of its own' questions
tap 'what is said at the start and at the end' opening_and_closing
tap 'denials are explained at the end' denials_at_the_end
tap 'quiet when asked' quiet_when_asked
tap 'a shell with job control' a_shell_with_job_control
tap 'resizing' resizing
tap 'detaching and attaching' detaching_and_attaching
tap 'a lone detach key reaches the session' a_lone_detach_key_passes
tap "detach keys of one's own" keys_of_ones_own
tap 'modes are undone on detaching' modes_are_undone
tap 'the terminal is put back after a crash' killed_while_raw
tap 'a terminal that goes away' the_terminal_goes_away
tap 'stopped from outside' stopped_from_outside
tap 'exec on a terminal' exec_on_a_terminal
tap_end
