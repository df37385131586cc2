#!/bin/bash
# install.sh DIR [AGENT…]: the real programs of the agents that npm has, as their presets name them,
# each with a prefix of its own: DIR/AGENT/node_modules/.bin has its command. All that have an npm
# package unless named. What is there already stays; several may ask at once. They are some hundred
# megabytes each, from the registry that this machine's npm is configured for.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:?usage: install.sh DIR [AGENT…]}
shift
mkdir -p "$dir"

package_of() { # agent
    sed -n 's/^[[:space:]]*package npm "\([^"]*\)".*/\1/p' "$top/policy/presets/$1.policy"
}

if [ $# -eq 0 ]; then
    for file in "$top"/policy/presets/*.policy; do
        agent=$(basename "$file" .policy)
        [ -z "$(package_of "$agent")" ] || set -- "$@" "$agent"
    done
fi

exec 9>"$dir/.lock"
flock -w 1800 9
for agent; do
    package=$(package_of "$agent")
    [ -n "$package" ] || { echo "$agent: its preset names no npm package" >&2; exit 1; }
    [ ! -e "$dir/$agent/.done" ] || continue
    rm -rf "${dir:?}/$agent"
    mkdir "$dir/$agent"
    npm install --prefix "$dir/$agent" --no-package-lock --no-audit --no-fund --loglevel=error \
        "$package" >&2
    touch "$dir/$agent/.done"
done
