#!/usr/bin/env bash
# One audited session under a policy, from launch to question. usage: demo.sh BUILD-DIR
#
# Everything lies in a temporary directory, the home directory too, and is removed at the end.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kbsup=$(cd "$1" && pwd)/supervisor/cli/kbsup
dir=$(mktemp -d "${TMPDIR:-/tmp}/kbsup-demo.XXXXXX")

export HOME=$dir/home XDG_RUNTIME_DIR=$dir/run XDG_STATE_HOME=$dir/state XDG_CONFIG_HOME=$dir/config
mkdir -m 700 "$HOME" "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME" "$XDG_CONFIG_HOME"
unset TMPDIR KBSUP_LIBEXEC

clean_up() {
    local pid
    pid=$("$kbsup" status --json 2>/dev/null | grep -o '"pid": *[0-9]*' | head -n 1 | tr -dc 0-9)
    if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
        while [ -d "/proc/$pid" ]; do sleep 0.05; done
    fi
    rm -rf "$dir"
}
trap clean_up EXIT

# Show the command a person would type, then run it.
show() {
    printf '\n$ kbsup'
    printf ' %s' "$@"
    printf '\n'
    "$kbsup" "$@"
}

project=$HOME/wordcount
cp -r "$here/project" "$project"
cp "$here/demo.policy" "$here/work.sh" "$project/"
echo 'Dear Ada, the key is under the mat.' >"$HOME/letter.txt"
cd "$project"

echo "A small C project, and a letter in the home directory beside it. The policy:"
sed 's/^/    /' demo.policy
show run --policy demo.policy -- sh work.sh
show audit tree last
show audit query last 'decision = denied'
show audit verify last
