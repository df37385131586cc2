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

case_copies() {
    local there=$WORK/there tree=$WORK/tree
    mkdir -p "$there" "$tree/sub dir/deep"
    head -c 3000000 /dev/urandom >"$tree/big"
    echo '#!/bin/sh' >"$tree/sub dir/run.sh"
    chmod 751 "$tree/sub dir/run.sh"
    : >"$tree/sub dir/deep/empty"
    printf x >"$tree/$(printf 'odd\n\377name')"
    ln -s ../big "$tree/sub dir/link"
    chmod 550 "$tree/sub dir/deep"
    # A file, to a name and into a directory; over one that is there.
    for _ in 1 2; do
        run kbsup vm cp "$tree/big" "box:$there/copy"
        expect_status 0
    done
    cmp "$tree/big" "$there/copy"
    run kbsup vm cp "$tree/sub dir/run.sh" "box:$there"
    expect_status 0
    expect_equal "$(stat -c %a "$there/run.sh")" 751 'mode'
    # A tree, there and back.
    run kbsup vm cp "$tree" "box:$there"
    expect_status 0
    diff -r "$tree" "$there/tree"
    expect_equal "$(cd "$there/tree" && find . -printf '%P %y %m %l\n' | sort)" \
        "$(cd "$tree" && find . -printf '%P %y %m %l\n' | sort)" 'names, kinds, modes, links'
    run kbsup vm cp "box:$there/tree" "$WORK/returned/"
    expect_status 0
    diff -r "$tree" "$WORK/returned"
    expect_equal "$(cd "$WORK/returned" && find . -printf '%P %y %m %l\n' | sort)" \
        "$(cd "$tree" && find . -printf '%P %y %m %l\n' | sort)" 'names, kinds, modes, links'
    # Relative to the user's home there; into a directory here.
    (cd "$WORK" && kbsup vm cp "box:$there/copy" .) && cmp "$tree/big" "$WORK/copy"
    expect_equal "$(find "$WORK" -name '*kbsup-part*')" '' 'parts'
    chmod -R u+w "$WORK"/{tree,there,returned}
}

case_bad_copies() {
    local there=$WORK/evil
    run kbsup vm cp "$WORK/tree" "$WORK/other"
    expect_status 2
    expect_err 'must be in a machine'
    run kbsup vm cp "box:a" "box:b"
    expect_status 2
    run kbsup vm cp "$WORK/no-such" "box:x"
    expect_status 1
    expect_err 'no-such'
    run kbsup vm cp "$WORK/tree/big" "box:$WORK/no/such/place"
    expect_status 1
    expect_err 'there is no such file'
    run kbsup vm cp "box:$WORK/no-such" "$WORK/x"
    expect_status 1
    [ ! -e "$WORK/x" ] || fail 'something was made'
    # What leads out is named and not made; the rest is.
    mkdir -p "$there/sub"
    ln -s /etc/passwd "$there/absolute"
    ln -s ../../.. "$there/sub/climbs"
    ln -s sub/.. "$there/roundabout"
    ln -s ../ok "$there/sub/fine"
    echo ok >"$there/ok"
    mkfifo "$there/pipe"
    run kbsup vm cp "box:$there" "$WORK/out"
    expect_status 1
    for name in absolute climbs roundabout pipe; do
        expect_err "$name"
        if [ -L "$WORK/out/$name" ] || [ -e "$WORK/out/$name" ] || [ -L "$WORK/out/sub/$name" ]; then
            fail "$name was made"
        fi
    done
    expect_equal "$(cat "$WORK/out/sub/fine")" ok 'the link inside'
    # A link that lies in wait here is not followed.
    mkdir -p "$WORK/trap/evil"
    ln -s "$WORK/victim" "$WORK/trap/evil/ok"
    mkdir "$WORK/victim-dir"
    ln -s "$WORK/victim-dir" "$WORK/trap/evil/sub"
    run kbsup vm cp "box:$there" "$WORK/trap"
    expect_status 1
    [ ! -e "$WORK/victim" ] || fail 'a link here was followed'
    [ -z "$(ls -A "$WORK/victim-dir")" ] || fail 'a directory link here was followed'
}

case_interrupted_copies() {
    local way from to
    truncate -s 3G "$WORK/huge"
    for way in put get; do
        from=$WORK/huge to=box:$WORK/landed
        [ "$way" = put ] || from=box:$WORK/huge to=$WORK/landed
        for signal in INT KILL; do
            "$BIN/kbsup" vm cp "$from" "$to" >/dev/null 2>"$WORK/said" &
            wait_until 60 copying "$way" || fail "$way: nothing is copied"
            kill -"$signal" $!
            wait $! && fail 'it exits 0'
            [ ! -e "$WORK/landed" ] || fail "$way, $signal: there is half a file"
            [ "$way $signal" = 'put KILL' ] || [ -z "$(find "$WORK" -maxdepth 1 -name '*kbsup-part')" ] ||
                fail "$way, $signal: a part is left"
            [ "$signal" = KILL ] || grep -q cancelled "$WORK/said" || fail "it says: $(cat "$WORK/said")"
            rm -f "$WORK"/*.kbsup-part
        done
    done
    rm -f "$WORK/huge"
}

# Bytes arrive: in the part there, or in the file here that has no name yet.
copying() { # put or get
    if [ "$1" = put ]; then
        [ -s "$WORK/landed.kbsup-part" ]
    else
        [ -n "$(find -L "/proc/$!/fd" "$WORK/.landed.kbsup-part" -maxdepth 1 -type f -size +100k 2>/dev/null)" ]
    fi
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
tap 'files and trees are copied both ways, with modes and links' case_copies
tap 'what cannot or may not be copied is named' case_bad_copies
tap 'an interrupted copy leaves no half file' case_interrupted_copies
tap 'the OpenSSH client works with ssh-config' case_openssh
tap 'its life is refused' case_not_ours
tap 'another host key, and no server, are told' case_changed
tap 'deleting forgets it' case_forgotten
sshd_down
tap_end
