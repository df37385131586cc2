#!/bin/sh
# Runs in an imported image, as root, before setup.sh: what a base of packages has from the start, and
# an end to what would compete with it for the machine's identity and network.
set -eu

wanted='crun:crun sshd:openssh-server git:git sudo:sudo ip:iproute2 nft:nftables ps:procps
curl:curl cryptsetup:cryptsetup-bin mke2fs:e2fsprogs runuser:util-linux'
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
missing=
for pair in $wanted; do
	command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
for package in "$@"; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
		missing="$missing $package"
done
if [ -n "$missing" ]; then
	command -v apt-get >/dev/null || {
		echo "the image has no apt-get, and lacks:$missing" >&2
		exit 1
	}
	export DEBIAN_FRONTEND=noninteractive
	apt-get update
	# shellcheck disable=SC2086 # one word each
	apt-get install -y --no-install-recommends $missing
fi
[ -d /run/systemd/system ] || {
	echo "the image's init is not systemd" >&2
	exit 1
}

# The machine service has the network. netplan would start systemd-networkd by itself.
for unit in systemd-networkd.socket systemd-networkd.service networking.service \
	NetworkManager.service dhcpcd.service; do
	systemctl disable "$unit" >/dev/null 2>&1 || true
done
for file in /etc/netplan/*.yaml; do
	[ ! -f "$file" ] || mv "$file" "$file.unused"
done
rm -f /etc/network/interfaces.d/50-cloud-init /etc/systemd/network/10-cloud-init-*.network \
	/etc/udev/rules.d/75-cloud-ifupdown.rules
# Its work is done: a machine that it took for a new one would be set up again.
touch /etc/cloud/cloud-init.disabled
