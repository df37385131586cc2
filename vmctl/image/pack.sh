#!/bin/sh
# Turns a tree of packages into what a machine boots from, in the directory given: a sparse ext4
# image, the kernel and its initrd, and a list of the packages. Runs as root, or as the root of a user
# namespace that maps the owners in the tree, in a mount namespace of its own.
set -eu
dir=$1 tree_tar=$2 bytes=$3 uuid=$4 epoch=$5 user=$6
PATH=$PATH:/usr/sbin:/sbin
cd "$dir"
trap 'rm -rf tree' EXIT
mkdir tree
tar -C tree --zstd --numeric-owner --exclude='./dev/*' -xpf "$tree_tar"

mkdir -p tree/usr/libexec/kbsup tree/root/kbsup
for program in programs/*; do
	install -m 755 "$program" tree/usr/libexec/kbsup/
done
install -m 600 setup.sh finish.sh tree/root/kbsup/
[ ! -f authorized-key ] || install -m 600 authorized-key tree/root/kbsup/

# Its own scripts, in a mount namespace that ends with them: what is bound there is never within reach
# of the rm above.
# shellcheck disable=SC2016 # the inner shell expands them
unshare --mount -- sh -euc '
	for node in null zero random urandom; do
		: >"tree/dev/$node"
		mount --bind "/dev/$node" "tree/dev/$node"
	done
	chroot tree env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 SOURCE_DATE_EPOCH="$2" \
		sh -euc "sh /root/kbsup/setup.sh \"\$1\" /root/kbsup/authorized-key
			sh /root/kbsup/finish.sh" sh "$1"
	chroot tree dpkg-query -W >packages
' sh "$user" "$epoch"
find tree/dev -mindepth 1 -delete
echo '/dev/vda / ext4 rw,noatime,errors=remount-ro 0 1' >tree/etc/fstab

cp tree/boot/vmlinuz-* vmlinuz
cp tree/boot/initrd.img-* initrd
chmod 600 vmlinuz initrd packages
# The same tree gives the same image: nothing in it is younger than its packages, nothing was read
# since, and the file system's own names and times follow from what is given. A file's change time
# cannot be set in the tree, where it is always now; debugfs sets it in the image.
export E2FSPROGS_FAKE_TIME="$epoch"
find tree -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
find tree -exec touch -h -a -d "@$epoch" {} +
mke2fs -q -t ext4 -d tree -U "$uuid" -E "hash_seed=$uuid,lazy_itable_init=1,discard" -m 1 root.img \
	"$((bytes / 1024))k"
find tree -printf "sif \"/%P\" ctime @$epoch\\n" >stamps
debugfs -w -f stamps root.img >/dev/null 2>&1
rm stamps
chmod 600 root.img
