#!/bin/sh
# usage: setup.sh USER [PUBLIC-KEY-FILE]
# Runs inside a new base, as root, in its own root directory or in a machine: everything that makes a
# Debian a base of kbsup. Its programs are in /usr/libexec/kbsup.
set -eu
user=$1 key=${2:-}

install -d -m 755 /etc/ssh/sshd_config.d

# The person: uid 1000, sudo without a password (the machine is the boundary, not the account).
# An imported image may have an account of its own there.
if ! id "$user" >/dev/null 2>&1; then
	uid=
	getent passwd 1000 >/dev/null || uid='-u 1000'
	# shellcheck disable=SC2086 # two words or none
	useradd -m $uid -s /bin/bash "$user"
fi
home=$(getent passwd "$user" | cut -d: -f6) group=$(id -gn "$user")
install -d -m 755 /etc/sudoers.d
echo "$user ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/kbsup
chmod 440 /etc/sudoers.d/kbsup
if [ -s "$key" ]; then
	install -d -m 700 -o "$user" -g "$group" "$home/.ssh"
	install -m 600 -o "$user" -g "$group" "$key" "$home/.ssh/authorized_keys"
fi

# sshd: keys only, our own client key beside the user's, one host key that each machine is given.
cat >/etc/ssh/sshd_config.d/kbsup.conf <<'CONF'
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/kbsup_authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
CONF

# The machine service: there before anything else wants an identity.
cat >/etc/systemd/system/kbsup-machine.service <<'UNIT'
[Unit]
Description=kbsup machine service
After=systemd-remount-fs.service

[Service]
ExecStart=/usr/libexec/kbsup/kbsup-machine
Restart=always
RestartSec=1
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
UNIT
case $(uname -m) in
aarch64) serial=ttyAMA0 ;;
*) serial=ttyS0 ;;
esac
systemctl enable kbsup-machine.service "serial-getty@$serial.service"
if [ -x /usr/libexec/kbsup/kbsup-guest ]; then
	cat >/etc/systemd/system/kbsup-guest.service <<'UNIT'
[Unit]
Description=kbsup sessions
After=kbsup-machine.service

[Service]
ExecStart=/usr/libexec/kbsup/kbsup-guest --serve --port=org.kbsup.guest
Restart=always
RestartSec=1
OOMScoreAdjust=-900
Delegate=yes

[Install]
WantedBy=multi-user.target
UNIT
	systemctl enable kbsup-guest.service
fi
echo virtio_console >/etc/modules-load.d/kbsup.conf
# sshd starts with each connection, and the network comes up only once the machine has its identity:
# so no sshd ever runs with another machine's keys, and a fork need not start one before it is usable.
systemctl disable ssh.service >/dev/null 2>&1 || true
systemctl enable ssh.socket
# Started by the machine service where the network needs it; the rest is idle work that a disposable
# machine has no use for and a template would carry along.
systemctl disable systemd-networkd.service systemd-networkd-wait-online.service \
	>/dev/null 2>&1 || true
# A machine id that is still to come makes systemd take the first boot for that of a new system, and
# enable what its presets say, all of the above among it.
install -d -m 755 /etc/systemd/system-preset
cat >/etc/systemd/system-preset/00-kbsup.preset <<'PRESET'
disable ssh.service
disable systemd-networkd.service
disable systemd-networkd.socket
disable systemd-networkd-wait-online.service
disable networking.service
disable NetworkManager.service
disable dhcpcd.service
PRESET
systemctl mask e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	e2scrub_all.timer fstrim.timer systemd-timesyncd.service >/dev/null 2>&1 || true
echo kbsup-base >/etc/hostname
