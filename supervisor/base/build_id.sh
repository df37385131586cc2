#!/bin/sh
# build_id.sh VERSION OUTPUT FILE…: what two builds must have in common to talk to each other: the
# version, and a fingerprint of the files that define the protocols between processes.
set -eu
version=$1 output=$2
shift 2
sum=$(cat "$@" | sha256sum | cut -c 1-12)
printf '#define KB_BUILD_ID "%s+%s"\n' "$version" "$sum" >"$output"
