#!/usr/bin/env bash
# Machines that were added: kbsup vm add and ssh against a real sshd on loopback.
# shellcheck disable=SC2016 # single quotes: the shell over there expands
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

[ -x /usr/sbin/sshd ] || skip_all 'no OpenSSH server here (package openssh-server)'
cp "$BUILD/vmctl/guest/kbsup-machine" "$BIN/" || exit 1
[ "$(id -u)" -ne 0 ] || mkdir -p /run/sshd
chmod 700 "$WORK/home"
S=$WORK/sshd
mkdir "$S"
for key in host other_host key; do
    ssh-keygen -q -t ed25519 -N '' -f "$S/$key"
done
PRINT=$(ssh-keygen -lf "$S/host.pub" | cut -d' ' -f2)
OTHER=$(ssh-keygen -lf "$S/other_host.pub" | cut -d' ' -f2)
USER_=$(id -un)

sshd_config() { # host key
    printf '%s\n' "ListenAddress 127.0.0.1" "Port $PORT" "HostKey $S/$1" \
        "AuthorizedKeysFile $S/key.pub" 'StrictModes no' 'UsePAM no' 'PasswordAuthentication no' \
        'PermitRootLogin yes' 'PidFile none' 'Subsystem sftp internal-sftp' >"$S/config"
}

sshd_up() { # host key
    sshd_config "$1"
    /usr/sbin/sshd -D -f "$S/config" -E "$S/log" &
    echo $! >"$S/pid"
    wait_until 60 answers && sshd_alive
}

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null
}

sshd_alive() {
    alive "$(cat "$S/pid")"
}

sshd_down() {
    kill "$(cat "$S/pid")" 2>/dev/null
    wait_until 60 not sshd_alive
}

for _ in 1 2 3 4 5; do
    PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    sshd_up host && break
    sshd_down
done
sshd_alive || skip_all 'sshd does not start here'
TARGET=ssh://$USER_@127.0.0.1:$PORT

case_unconfirmed() {
    run kbsup vm add box "$TARGET" --key "$S/key"
    expect_status 4
    expect_err "$PRINT"
    expect_err '--host-key'
    run kbsup vm add box "$TARGET" --key "$S/key" --host-key "$OTHER"
    expect_status 4
    expect_err "not $OTHER"
    run kbsup vm add box "$TARGET" --host-key "$PRINT"
    expect_status 1
    expect_err 'none of the keys'
    run kbsup vm add box "http://$USER_@127.0.0.1" --host-key "$PRINT"
    expect_status 2
    run kbsup vm list --json
    expect_equal "$out" '[]' 'machines'
}

case_added() {
    run kbsup vm add box "$TARGET" --key "$S/key" --host-key "$PRINT"
    expect_status 0
    run kbsup vm list --json
    expect_equal "$(json '(d[0]["name"], d[0]["state"], d[0]["address"])' <<<"$out" | tr '\n' ' ')" \
        "box remote 127.0.0.1:$PORT " 'the list'
    run kbsup vm status box
    expect_out 'remote'
    run kbsup vm add box "$TARGET" --key "$S/key" --host-key "$(cat "$S/host.pub")"
    expect_status 1
    expect_err 'there is a machine box'
}

case_commands() {
    run kbsup vm ssh box -- 'echo out; echo err >&2; exit 3'
    expect_status 3
    expect_equal "$out" out 'output'
    expect_equal "$err" err 'error output'
    run kbsup vm ssh box -- printf '%s|' 'a b' "it's" '$HOME' ''
    expect_equal "$out" 'a b|it'\''s|$HOME||' 'words'
    run kbsup vm ssh box -- 'kill -TERM $$'
    expect_status 143
    run kbsup vm ssh nobox -- true
    expect_status 1
    expect_err 'there is no machine nobox'
}

case_bytes() {
    head -c 5000000 /dev/urandom >"$WORK/in"
    kbsup vm ssh box -- cat <"$WORK/in" >"$WORK/back"
    cmp "$WORK/in" "$WORK/back"
    kbsup vm ssh box -- cat <"$WORK/in" | (sleep 1 && cat) >"$WORK/back"
    cmp "$WORK/in" "$WORK/back"
}

case_openssh() {
    kbsup vm ssh-config box >"$WORK/config.ssh"
    expect_equal "$(timeout 60 ssh -F "$WORK/config.ssh" -o BatchMode=yes box.kbsup 'echo in' </dev/null)" in ssh
    echo put >"$WORK/put"
    timeout 60 sftp -q -F "$WORK/config.ssh" -b - box.kbsup <<<"put $WORK/put $WORK/put.there" >/dev/null
    cmp "$WORK/put" "$WORK/put.there"
}

case_not_ours() {
    for verb in start stop suspend; do
        run kbsup vm "$verb" box
        expect_status 2
        expect_err "not kbsup's"
    done
    run kbsup vm console box
    expect_status 1
    run kbsup vm forward box 8080:80
    expect_status 2
}

case_changed() {
    sshd_down
    sshd_up other_host
    run kbsup vm ssh box -- echo never
    expect_status 4
    expect_err 'another host key'
    expect_equal "$out" '' 'output'
    sshd_down
    sshd_up host
    run kbsup vm ssh box -- echo again
    expect_equal "$out" again
    sshd_down
    run kbsup vm ssh box -- echo never
    expect_status 1
    expect_err 'cannot be reached'
}

case_forgotten() {
    run kbsup vm delete box
    expect_status 0
    run kbsup vm list --json
    expect_equal "$out" '[]' 'machines'
    run kbsup vm delete box
    expect_status 1
    expect_err 'there is no machine box'
}

tap 'a host key nobody confirmed, or another, adds nothing' case_unconfirmed
tap 'a confirmed one is pinned and listed' case_added
tap 'commands: words, output, exit status, signal' case_commands
tap 'bytes go through exactly, to a slow reader as well' case_bytes
tap 'the OpenSSH client works with ssh-config' case_openssh
tap 'its life is refused' case_not_ours
tap 'another host key, and no server, are told' case_changed
tap 'deleting forgets it' case_forgotten
sshd_down
tap_end
