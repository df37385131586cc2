#!/usr/bin/env bash
# A base from a cloud image: set up by its own cloud-init from our seed, then like any other.
# shellcheck disable=SC2016 # single quotes: the machine's shell expands
VM_NO_BASE=1
. "${0%/*}/lib.sh"
command -v grub-mkimage >/dev/null || skip_all "no grub-mkimage here"
[ -f /usr/lib/grub/i386-pc/boot.img ] || skip_all "no grub-pc-bin here"
maker=${0%/*}/cloud_image.sh
IMAGE=$VM_CACHE/cloud.qcow2
if [ "$(cat "$IMAGE.key" 2>/dev/null)" != "$(sha256sum <"$maker")" ]; then
	rm -f "$IMAGE.key"
	bash "$maker" "$IMAGE" 2>&1 | tail -n 3 >&2
	sha256sum <"$maker" >"$IMAGE.key"
fi

section "what is no whole disk is refused before anything is done"
qemu-img create -q -f qcow2 -b "$IMAGE" -F qcow2 "$WORK/overlay.qcow2"
refused "an overlay" "names another file" vm base-create bad from="$WORK/overlay.qcow2"
head -c 4096 /dev/zero >"$WORK/zeros"
refused "zeros" "neither qcow2 nor" vm base-create bad from="$WORK/zeros"
refused "no file" "No such file" vm base-create bad from="$WORK/none"
refused "a directory" "no file with an image" vm base-create bad from="$WORK"
refused "less than it is" "more than --size" vm base-create bad from="$IMAGE" size=1G
same "nothing of them is left" '' "$(find "$VMTOOL_STATE/tmp" "$VMTOOL_STATE/bases/bad" 2>/dev/null | grep -vx "$VMTOOL_STATE/tmp" || true)"

section "an image that never starts the seed is given up, and says what it showed"
head -c $((4 << 20)) /dev/zero >"$WORK/empty.raw"
printf '\125\252' | dd of="$WORK/empty.raw" bs=1 seek=510 conv=notrunc status=none
text=$(vm base-create bad from="$WORK/empty.raw" import_ms=15000 2>&1) && fail "it was imported"
contains "it says how long" "did not answer within" "$text"
contains "and what it needs" "needs cloud-init" "$text"

section "the image becomes a base, with the person's key and dotfiles"
mkdir "$WORK/dots"
git -C "$WORK" init -q --bare dots.git
git -C "$WORK" clone -q dots.git work 2>/dev/null
printf '#!/bin/sh\necho "set up for $(id -un)"\necho "$PWD" >~/.where\n' >"$WORK/work/install.sh"
git -C "$WORK/work" add install.sh
git -C "$WORK/work" -c user.name=t -c user.email=t@t commit -qm dots
git -C "$WORK/work" push -q origin HEAD
ssh-keygen -q -t ed25519 -N '' -f "$WORK/key"
text=$(VMTOOL_QUIET='' VM_LIMIT=1500 vm base-create cloud from="$IMAGE" user=ann dotfiles="$WORK/dots.git" \
	key="$(cat "$WORK/key.pub")"$'\n' 2>&1) || fail "the import failed: $text"
say "$text"
contains "the dotfiles' words are shown" "dotfiles: set up for ann" "$text"
contains "the list" 'cloud generation=1 current=1 frozen=1' "$(vm base-list)"
same "nothing but what a machine needs" 'base.json root.img template' \
	"$(find "$VMTOOL_STATE/bases/cloud/1" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs)"

section "machines of it are forked, and are its own"
contains "forked" forked=1 "$(vm start one base=cloud)"
contains "another" forked=1 "$(vm start two base=cloud)"
same "its name" one "$(guest one hostname)"
same "the account" 1000 "$(guest one 'id -u ann')"
same "cloud-init made none" '' "$(guest one 'getent passwd debian || true')"
same "dotfiles ran there" /home/ann/.dotfiles "$(guest one 'cat /home/ann/.where')"
same "its disk has grown" yes "$(guest one '[ $(df --output=size -m / | tail -1) -gt 10000 ] && echo yes')"
ids=$(guest one 'cat /etc/machine-id')$'\n'$(guest two 'cat /etc/machine-id')$'\n'0123456789abcdef0123456789abcdef
same "machine ids" '' "$(sort <<<"$ids" | uniq -d)"
same "no history" '' "$(guest one 'cat /root/.bash_history 2>/dev/null')"
same "no traces of the import" '' "$(guest one 'ls -d /var/lib/cloud /run/kbsup-seed/* 2>/dev/null')"
same "one address" 10.0.2.15/24 "$(guest one "ip -4 -o address show scope global | awk '{ print \$4 }'")"
guest one 'systemctl is-system-running' >&2 || true
port=$(field one port)
for _ in $(seq 100); do
	out=$(ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -i "$WORK/key" -p "$port" ann@127.0.0.1 whoami 2>/dev/null) && break
	sleep 0.3
done
same "the key opens it" ann "$out"

section "a machine of it boots by its own boot loader, and sets nothing up again"
vm delete two
contains "booted" forked=0 "$(VM_LIMIT=300 vm start two cold base=cloud)"
same "its name" two "$(guest two hostname)"
same "the account is still the one" ann "$(guest two 'id -nu 1000')"
same "cloud-init slept" '' "$(guest two 'ls -d /var/lib/cloud 2>/dev/null')"

section "it is a base like any other"
refused "in use" "needed by 2 machines" vm base-delete cloud
vm delete one
vm delete two
vm base-delete cloud
nothing_left
