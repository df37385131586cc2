#!/usr/bin/env bash
# How bases are made of packages: the same from the same, one generation after another, and with the
# person's dotfiles.
# shellcheck disable=SC2016,SC2088 # single quotes: the machine's shell expands; ~ is a word of ours
. "${0%/*}/lib.sh"

# What a run that was cut short left.
for base in two three same; do vm base-delete "$base" 2>/dev/null || true; done

section "dotfiles of a repository are carried out in the base; their failure fails the build"
git init -q -b main "$WORK/repo"
printf '%s\n' 'vimrc .vimrc' 'tool ~/.local/bin/tool' >"$WORK/repo/files.map"
echo 'set nocompatible' >"$WORK/repo/vimrc"
echo x >"$WORK/repo/tool"
git -C "$WORK/repo" add .
git -C "$WORK/repo" -c user.name=t -c user.email=t@t commit -qm dots
git clone -q --bare "$WORK/repo" "$WORK/repo.git"
text=$(VMTOOL_QUIET='' VM_LIMIT=400 vm base-create two template=no dotfiles="$WORK/repo.git" 2>&1) || fail "it failed: $text"
say "$text"
contains "packages are not installed twice" "those installed today" "$text"
contains "what they say is shown" 'dotfiles: ~/.vimrc is vimrc' "$text"
look() { PATH=$PATH:/usr/sbin:/sbin debugfs -R "$1" "$VMTOOL_STATE/bases/two/current/root.img" 2>/dev/null; }
contains "the link is in the image" '/home/dev/.dotfiles/vimrc' "$(look 'stat /home/dev/.vimrc')"
same "no machine id" uninitialized "$(look 'cat /etc/machine-id')"
for path in /var/lib/systemd/random-seed /etc/ssh/ssh_host_ed25519_key /root/.bash_history /var/lib/kbsup; do
	same "$path" '' "$(look "stat $path")"
done
mkdir "$WORK/bad"
printf '%s\n' '#!/bin/sh' 'exit 7' >"$WORK/bad/install.sh"
refused "dotfiles that fail" "the dotfiles failed: it ended with exit 7" \
	vm base-create three template=no dotfiles="$WORK/bad"
same "no such base" '' "$(vm base-list | grep '^three' || true)"
vm base-delete two

section "the same packages give the same image, byte for byte; a machine keeps its generation"
same=$VMTOOL_STATE/bases/same
# Its files, and when they were last changed in any way.
stamps() { (cd "$same/1" && stat -c '%n %i %s %z' root.img vmlinuz initrd packages base.json); }
VM_LIMIT=300 vm base-create same template=no size=2G
vm start m cold base=same >/dev/null
stamps >"$WORK/stamps"
VM_LIMIT=300 vm base-create same template=no size=2G
for file in root.img vmlinuz initrd packages; do
	cmp "$same/1/$file" "$same/2/$file" || fail "$file is another one"
done
same "generation 1, which m needs" "$(cat "$WORK/stamps")" "$(stamps)"
same "both are there" "same/1 users=1 current=0, same/2 users=0 current=1" \
	"$(vm base-list | awk '$1 == "same" { split($2, g, "="); print "same/" g[2], $5, $3 }' | sort | paste -sd, | sed 's/,/, /')"
vm stop m
contains "it boots that one again" running "$(vm start m)"
vm delete m
vm collect
[ ! -e "$same/1" ] || fail "generation 1 is there when nobody needs it any more"
vm base-delete same
nothing_left
