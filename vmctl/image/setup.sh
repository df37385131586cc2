#!/bin/sh
# Runs inside a new base, as root, in its own root directory. Everything that makes a plain Debian a
# base of kbsup, and nothing that tells one machine from another.
set -eu
user=$1

install -d -m 755 /usr/libexec/kbsup /etc/ssh/sshd_config.d
for program in /usr/libexec/kbsup/*; do
	[ ! -f "$program" ] || chmod 755 "$program"
done

# The person: uid 1000, sudo without a password (the machine is the boundary, not the account).
id "$user" >/dev/null 2>&1 || useradd -m -u 1000 -s /bin/bash "$user"
install -d -m 755 /etc/sudoers.d
echo "$user ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/kbsup
chmod 440 /etc/sudoers.d/kbsup
if [ -s /tmp/kbsup-authorized-key ]; then
	install -d -m 700 -o "$user" -g "$user" "/home/$user/.ssh"
	install -m 600 -o "$user" -g "$user" /tmp/kbsup-authorized-key \
		"/home/$user/.ssh/authorized_keys"
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
systemctl enable kbsup-machine.service serial-getty@ttyS0.service
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
systemctl mask e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	e2scrub_all.timer fstrim.timer systemd-timesyncd.service >/dev/null 2>&1 || true
echo '/dev/vda / ext4 rw,noatime,errors=remount-ro 0 1' >/etc/fstab
echo kbsup-base >/etc/hostname

# The person's own set-up, by the usual entry points, as the person.
if [ -d /tmp/kbsup-dotfiles ] || [ -s /tmp/kbsup-dotfiles-url ]; then
	home=/home/$user
	if [ -s /tmp/kbsup-dotfiles-url ]; then
		runuser -u "$user" -- git clone -- "$(cat /tmp/kbsup-dotfiles-url)" "$home/.dotfiles"
	else
		cp -a /tmp/kbsup-dotfiles "$home/.dotfiles"
		chown -R "$user:$user" "$home/.dotfiles"
	fi
	cd "$home/.dotfiles"
	if [ -x bootstrap.sh ]; then
		set -- ./bootstrap.sh start
	elif [ -x install.sh ]; then
		set -- ./install.sh
	elif [ -f Rakefile ]; then
		set -- rake
	elif [ -f files.map ]; then
		# "FILE HOME-PATH" per line: links from the home directory.
		# shellcheck disable=SC2016 # the inner shell expands them
		set -- sh -ec 'while read -r from to; do
			mkdir -p "$(dirname "$HOME/$to")"
			ln -sfn "$PWD/$from" "$HOME/$to"
		done <files.map'
	else
		echo "the dotfiles have no bootstrap.sh, install.sh, Rakefile or files.map" >&2
		exit 1
	fi
	runuser -u "$user" -- env HOME="$home" USER="$user" "$@" ||
		{ echo "the dotfiles' $1 failed with exit $?" >&2; exit 1; }
	cd /
fi

# Nothing of the build stays, nothing that a machine must have for itself.
rm -rf /tmp/kbsup-* /kbsup-setup.sh
rm -f /etc/ssh/ssh_host_* /var/lib/systemd/random-seed /var/lib/dbus/machine-id \
	/root/.bash_history "/home/$user/.bash_history"
echo uninitialized >/etc/machine-id
find /var/log -type f -delete
