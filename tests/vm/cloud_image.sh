#!/usr/bin/env bash
# usage: cloud_image.sh IMAGE
# A cloud image as distributions make them, without root and without a download but Debian's packages:
# a disk with a partition, a boot loader in front of it, cloud-init that looks for a seed, and an
# account, keys and a machine id that a base must not keep.
# shellcheck disable=SC2016 # mmdebstrap expands its hooks
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
image=$1
work=$(mktemp -d "$image.XXXXXX")
trap 'rm -rf "$work"' EXIT
part_mib=1500

packages=systemd-sysv,udev,dbus,linux-image-cloud-amd64,initramfs-tools,zstd,kmod,crun,openssh-server
packages+=,git,ca-certificates,curl,iproute2,netbase,procps,sudo,cryptsetup-bin,e2fsprogs,nftables
packages+=,cloud-init,cloud-guest-utils,netplan.io,python3
mapfile -t sources < <(grep -ls bookworm /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources)
mmdebstrap --mode=auto --variant=minbase --include="$packages" \
	--customize-hook='echo "/dev/vda1 / ext4 rw,errors=remount-ro 0 1" >"$1/etc/fstab"' \
	--customize-hook='echo 0123456789abcdef0123456789abcdef >"$1/etc/machine-id"' \
	--customize-hook='echo "secret --token" >"$1/root/.bash_history"' \
	bookworm "$work/root.tar" "${sources[@]}"

cat >"$work/partition.sh" <<'END'
set -eu
mkdir "$1/tree"
tar -C "$1/tree" --numeric-owner --exclude='./dev/*' -xpf "$1/root.tar"
mke2fs -q -t ext4 -d "$1/tree" -m 1 "$1/part" "$2M"
rm -rf "$1/tree"
END
if [ "$(id -u)" -eq 0 ]; then
	sh "$work/partition.sh" "$work" "$part_mib"
else
	unshare --map-root-user --map-auto -- sh "$work/partition.sh" "$work" "$part_mib"
fi

# GRUB between the partition table and the partition, where it looks for its second part.
cat >"$work/grub.cfg" <<'END'
set root=(hd0,msdos1)
linux /vmlinuz root=/dev/vda1 ro console=ttyS0
initrd /initrd.img
boot
END
grub-mkimage -O i386-pc -c "$work/grub.cfg" -o "$work/core" -p '(hd0,msdos1)/boot/grub' \
	biosdisk part_msdos ext2 linux boot
python3 - "$work/disk" "$part_mib" <<'END'
import struct, sys
with open(sys.argv[1], "wb") as disk:
    disk.seek(446)
    disk.write(struct.pack("<B3sB3sII", 0x80, b"\0\2\0", 0x83, b"\xff" * 3, 2048, int(sys.argv[2]) * 2048))
    disk.seek(510)
    disk.write(b"\x55\xaa")
END
dd if=/usr/lib/grub/i386-pc/boot.img of="$work/disk" bs=440 count=1 conv=notrunc status=none
dd if="$work/core" of="$work/disk" bs=512 seek=1 conv=notrunc status=none
dd if="$work/part" of="$work/disk" bs=1M seek=1 conv=notrunc,sparse status=none
qemu-img convert -f raw -O qcow2 "$work/disk" "$work/qcow2"
mv "$work/qcow2" "$image"
