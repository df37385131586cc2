#!/usr/bin/env bash
# What a base made of packages is at its first boot, the person's dotfiles by every form they come in,
# and what is refused before a build. What takes whole builds is in builds.sh.
# shellcheck disable=SC2016,SC2088 # single quotes: the machine's shell expands; ~ is a word of ours
. "${0%/*}/lib.sh"
SCRIPT=$VM_SOURCES/image/dotfiles.sh

# set_up FORM: carries out $WORK/FORM in machine dots as its user, as a build would
set_up() {
	local tar
	tar=$(tar -C "$WORK/$1" -cf - . | gzip | base64 -w0)
	vm exec dots sh -c '
		cd /root && printf %s "$1" | base64 -d | gunzip >dots.tar && printf %s "$2" | base64 -d >dots.sh
		rm -rf /home/dev/.dotfiles && sh dots.sh dev /root/dots.tar' sh "$tar" "$(base64 -w0 <"$SCRIPT")" 2>&1
}
form() { # NAME FILE TEXT…: dotfiles with these files, executable if they are scripts
	local name=$1
	mkdir -p "$WORK/$name"
	shift
	while [ $# -gt 0 ]; do
		printf '%s\n' "$2" >"$WORK/$name/$1"
		case $1 in *.sh) chmod 755 "$WORK/$name/$1" ;; esac
		shift 2
	done
}

section "what a base turns off stays off through its first boot"
vm start dots >/dev/null
same "units" "disabled disabled enabled" \
	"$(guest dots 'echo $(systemctl is-enabled ssh.service systemd-networkd.service ssh.socket)')"
same "nothing failed" '' "$(guest dots 'systemctl --failed --no-legend')"

section "dotfiles: each form is carried out as the person, in the home directory's copy"
form boot bootstrap.sh '#!/bin/bash
echo "$0 $1 as $(id -un) in $PWD with $HOME"' install.sh 'echo never'
same "bootstrap.sh comes first" './bootstrap.sh start as dev in /home/dev/.dotfiles with /home/dev' "$(set_up boot)"
form inst install.sh '#!/bin/sh
echo $SHELL; touch ~/made'
same "install.sh" /bin/bash "$(set_up inst)"
same "and whose its files are" dev "$(guest dots 'stat -c %U /home/dev/made /home/dev/.dotfiles/install.sh | uniq')"
chmod 644 "$WORK/inst/install.sh"
same "one that lost its mode" /bin/bash "$(set_up inst)"
form rake Rakefile 'task(:default) { puts "raked" }'
vm exec dots sh -c 'printf "#!/bin/sh\necho raked \$(id -un) \$PWD\n" >/usr/local/bin/rake; chmod 755 /usr/local/bin/rake'
same "Rakefile" "raked dev /home/dev/.dotfiles" "$(set_up rake)"
form map files.map '# comment

vimrc .vimrc
tool ~/.local/bin/tool' vimrc 'set nocompatible' tool 'x'
contains "files.map" '~/.vimrc is vimrc' "$(set_up map)"
same "its links" "/home/dev/.dotfiles/vimrc /home/dev/.dotfiles/tool" \
	"$(guest dots 'echo $(readlink /home/dev/.vimrc /home/dev/.local/bin/tool)')"

section "dotfiles: what fails says so, with its exit"
form bad install.sh '#!/bin/sh
echo "no such luck" >&2; exit 7'
refused "a script that fails" "install.sh failed" set_up bad
contains "its own words" "no such luck" "$(set_up bad || true)"
code=0
set_up bad >/dev/null || code=$?
same "its exit" 7 "$code"
form lost files.map 'nothing .nothing'
refused "a map with what is not there" "there is no nothing" set_up lost
form out files.map 'files.map ../dev2/x'
refused "a map that leads out" "leads out of the home" set_up out
vm delete dots

section "what is asked for is checked before anything is done"
refused "a package" "is not the name of a package" vm base-create two package='a b'
refused "an account" "is not a name for an account" vm base-create two user='x y'
refused "an architecture" "they can have x86_64 or aarch64" vm base-create two arch=vax
refused "a name" "is not a name for a base" vm base-create ../two
mkdir "$WORK/none"
refused "dotfiles without a form" "has nothing that sets an account up" vm base-create two dotfiles="$WORK/none"
refused "no repository" "the dotfiles cannot be fetched" vm base-create two dotfiles="$WORK/nowhere"
same "nothing of them is left" '' "$(find "$VMTOOL_STATE/tmp" "$VMTOOL_STATE/bases/two" 2>/dev/null | grep -vx "$VMTOOL_STATE/tmp" || true)"
nothing_left
