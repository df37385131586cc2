#!/bin/sh
# usage: dotfiles.sh USER TAR
# Runs inside a base, as root: unpacks the person's dotfiles to ~/.dotfiles and carries them out as that
# person, by the first of the usual entry points. What they print is printed, and how they end is how
# this ends.
set -eu
user=$1 tar=$2
home=$(getent passwd "$user" | cut -d: -f6)
dir=$home/.dotfiles

as_user() {
	runuser -u "$user" -- env -i HOME="$home" USER="$user" LOGNAME="$user" SHELL=/bin/bash \
		LANG=C.UTF-8 TERM=dumb PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin \
		"$@"
}

# A script that lost its mode on the way is one all the same.
run_script() {
	script=./$1
	shift
	if [ -x "$script" ]; then as_user "$script" "$@"; else as_user sh "$script" "$@"; fi
}

run_rake() {
	command -v rake >/dev/null || {
		export DEBIAN_FRONTEND=noninteractive
		apt-get update && apt-get install -y --no-install-recommends rake
	}
	as_user rake
}

# "FILE HOME-PATH" per line; blank lines and # are comments.
run_map() {
	# shellcheck disable=SC2016 # the inner shell expands them
	as_user sh -ec '
		while read -r from to || [ -n "$from" ]; do
			case $from in "" | "#"*) continue ;; esac
			to=${to#"~/"}
			[ -n "$to" ] || { echo "files.map: $from has no place to go" >&2; exit 1; }
			[ -e "$from" ] || { echo "files.map: there is no $from" >&2; exit 1; }
			case /$to in
			*/../* | */..) echo "files.map: $to leads out of the home" >&2; exit 1 ;;
			esac
			mkdir -p "$(dirname "$HOME/$to")"
			ln -sfnT "$PWD/$from" "$HOME/$to"
			echo "~/$to is $from"
		done <files.map'
}

[ ! -e "$dir" ] || {
	echo "there is a $dir already" >&2
	exit 1
}
as_user mkdir "$dir"
as_user tar -C "$dir" --no-same-owner -xpf - <"$tar"
cd "$dir"
if [ -f bootstrap.sh ]; then
	what=bootstrap.sh
	run_script bootstrap.sh start || code=$?
elif [ -f install.sh ]; then
	what=install.sh
	run_script install.sh || code=$?
elif [ -f Rakefile ]; then
	what=Rakefile
	run_rake || code=$?
elif [ -f files.map ]; then
	what=files.map
	run_map || code=$?
else
	echo "the dotfiles have no bootstrap.sh, install.sh, Rakefile or files.map" >&2
	exit 1
fi
[ "${code:-0}" -eq 0 ] || echo "$what failed" >&2
exit "${code:-0}"
