#!/bin/sh
# Turns a root directory's tar into what a machine boots from, in the directory given: a sparse
# ext4 image, the kernel and its initrd. Runs as root, or as the root of a user namespace that
# maps the owners in the tar.
set -eu
tar=$1 bytes=$2 uuid=$3
cd "$4"
trap 'rm -rf tree' EXIT
mkdir tree
tar -C tree --numeric-owner --exclude='./dev/*' -xpf "$tar"
echo '/dev/vda / ext4 rw,noatime,errors=remount-ro 0 1' >tree/etc/fstab
cp tree/boot/vmlinuz-* vmlinuz
cp tree/boot/initrd.img-* initrd
chmod 600 vmlinuz initrd
mke2fs -q -t ext4 -d tree -U "$uuid" -E "hash_seed=$uuid,lazy_itable_init=1,discard" -m 1 root.img \
	"$((bytes / 1024))k"
