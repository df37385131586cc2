#!/usr/bin/env bash
# Every question about a recorded session, asked through the command line.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

# A Python expression about what was printed.
holds() {
    expect_equal "$(json "$1" <"$WORK/stdout")" True "$1"
}

record_one() {
    mkdir -p "$HOME/.ssh"
    echo secret >"$HOME/.ssh/id"
    echo text >"$WS/kept"
    run session -- sh -c "echo one >made; rm kept; cat '$HOME/.ssh/id'; true"
    expect_status 0
}

asked_by_people() {
    run kbsup audit sessions
    expect_out 'exit 0'
    run kbsup audit tree last
    expect_out 'rm kept'
    expect_out '✗ denied open'
    expect_out 'base.policy:'
    run kbsup audit timeline last
    expect_out '+00:0'
    expect_out 'denied E' # EACCES or ENOENT, as the lane has it
    run kbsup audit stats last
    expect_out 'busiest processes'
    expect_out 'longest processes'
    run kbsup audit query last 'event = unlink and path ~ "**/kept"'
    expect_out 'rm('
    run kbsup audit report --format md
    expect_out '## Denied'
}

asked_by_programs() {
    run kbsup audit query last 'decision = denied and path ~ "~/.ssh/**"' --json
    holds "all(r['decision'] == 'denied' and r['rule'].startswith('base.policy:') for r in L) and len(L) >= 1"
    run kbsup audit stats last --json
    holds "d['sessions'] == 1 and d['denials'] >= 1 and d['events']['unlink'] >= 1"
    holds "[p['lasted_ns'] for p in d['longest']] == sorted((p['lasted_ns'] for p in d['longest']), reverse=True) and d['longest'][0]['lasted_ns'] > 0"
    run kbsup audit timeline last --json
    holds "len(L) > 5 and all('offset_ms' in r for r in L)"
    run kbsup audit tree last --json
    holds "len(d['processes']) >= 1"
    for format in jsonl ocsf otlp; do
        run kbsup audit export last --format "$format"
        expect_status 0
        holds "len(L) >= 1"
    done
}

pages() {
    run kbsup audit report last -o "$WORK/page.html"
    expect_status 0
    grep -q '<!DOCTYPE html>' "$WORK/page.html" || fail 'the page is no page'
    [ ! -e "$WORK/page.html.part" ] || fail 'a half-written page is left'
    run kbsup audit report nobody -o "$WORK/none.html"
    expect_status 1
    expect_one_error
    [ ! -e "$WORK/none.html" ] || fail 'a page was made of no session'
}

verified() {
    run kbsup audit verify
    expect_status 0
    run kbsup audit verify --export-anchor
    expect_out 'kbsup-anchor 1 '
    cp "$WORK/stdout" "$WORK/anchor"
    run kbsup audit verify --anchor "$WORK/anchor"
    expect_status 0
    run kbsup audit verify --anchor "$HOME/.ssh/id"
    expect_status 1
    expect_err 'not an anchor'
    # Somebody takes the record away: what is left does not fit what was signed.
    stop_supervisor
    rm -r "$XDG_STATE_HOME/kbsup/store"
    # Nor is it asked for before the store is there again, which here takes its time.
    mkdir -m 700 "$XDG_STATE_HOME/kbsup/store"
    flock "$XDG_STATE_HOME/kbsup/store/writer.lock" sleep 2 &
    run kbsup audit verify all
    wait $!
    expect_status 1
    expect_out 'the whole session has been removed'
}

pruned_after_one() {
    stop_supervisor
    rm -rf "$XDG_STATE_HOME/kbsup/"store*
    record_one
    pruned
}

# Tombstones, beside a session that runs and one that is kept.
pruned() {
    run kbsup audit prune
    expect_status 2
    expect_one_error
    run kbsup audit prune --keep soon
    expect_status 2
    expect_one_error
    kbsup run --workspace "$WS" --name live --detach -- sleep 1000
    run kbsup audit prune --keep 1d --json
    expect_status 0
    holds "d['sessions'] == 0 and d['left_bytes'] > 0"
    run kbsup audit prune --keep 0s
    expect_status 0
    expect_out 'dropped 1 session with'
    run kbsup audit sessions
    expect_out 'records, pruned '
    expect_out 'live'
    run kbsup audit sessions --json
    holds "[s['state'] for s in d] == ['pruned', 'running']"
    run kbsup audit verify all
    expect_status 3 # one still runs
    expect_out 'dropped on purpose'
    run kbsup ps -a --json
    holds "[s['name'] for s in d] == ['live']"
    run kbsup stop live
    run kbsup audit prune --max-size 1
    expect_out 'dropped 1 session'
    run kbsup audit verify all
    expect_status 0
    expect_out 'pruned      2 sessions'
    # Without the store's key nobody makes a tombstone.
    stop_supervisor
    sed -i 's/ pruned [0-9]* / pruned 1 /' "$XDG_STATE_HOME/kbsup/store.heads"
    run kbsup audit verify all
    expect_status 1
    expect_out 'the whole session has been removed'
}

# The same questions of a log that strace wrote.
imported() {
    printf '%s\n' \
        '11 1700000000.000100 execve("/bin/sh", ["sh", "-c", "cat a; rm a"], 0x7f /* 3 vars */) = 0' \
        '11 1700000000.100000 clone(child_stack=NULL, flags=SIGCHLD) = 12' \
        '12 1700000000.200000 execve("/bin/cat", ["cat", "a"], 0x7f /* 3 vars */) = 0' \
        '12 1700000000.300000 openat(AT_FDCWD</w>, "a", O_RDONLY) = 3</w/a>' \
        '12 1700000000.350000 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("1.2.3.4")}, 16) = 0' \
        'this line is not of strace' \
        '12 1700000000.400000 +++ exited with 0 +++' \
        '11 1700000000.500000 unlink("/w/a") = 0' \
        '11 1700000000.600000 +++ exited with 3 +++' >"$WORK/log"
    run kbsup audit import strace "$WORK/log" --name traced --json
    expect_status 0
    holds "d['name'] == 'traced' and d['records'] == 8 and d['lines'] == 9 and d['foreign'] == 1"
    run kbsup audit sessions --json
    holds "[(s['agent'], s['machine'], s['exit_code'], s['started'][:19]) for s in d if s['name'] == 'traced'] == [('strace', 'import', 3, '2023-11-14T22:13:20')]"
    run kbsup audit query traced 'event = open and path = "/w/a" and exe = "/bin/cat"' --json
    holds "len(L) == 1 and L[0]['ppid'] == 11"
    run kbsup audit tree traced
    expect_out 'cat a'
    run kbsup audit report traced -o "$WORK/traced.html"
    expect_status 0
    run kbsup audit report traced --format md
    expect_out '1.2.3.4'
    run kbsup audit verify traced
    expect_status 0
    # What is no log makes no session; what cannot be read to its end makes one that says so.
    run kbsup audit import strace "$HOME/.ssh/id" --name none
    expect_status 1
    expect_one_error
    run kbsup audit import strace "$WORK"
    expect_status 1
    expect_one_error
    run kbsup audit import ltrace "$WORK/log"
    expect_status 2
    { cat "$WORK/log"; head -c 5000000 /dev/zero | tr '\0' x; } >"$WORK/cut"
    run kbsup audit import strace "$WORK/cut" --name half
    expect_status 1
    expect_one_error
    run kbsup audit verify half
    expect_status 3
    expect_out 'longer than'
    run kbsup audit query none
    expect_status 1
}

many_imported() {
    for ((i = 0; i < 100000; i++)); do echo "7 unlink(\"/n/$i\") = 0"; done >"$WORK/many"
    run kbsup audit import strace "$WORK/many" --name many --json
    expect_status 0
    holds "d['records'] == 100001"
    run kbsup audit verify many
    expect_status 0
    # Its client goes: the importer goes with it, and the session is finished.
    mkfifo "$WORK/fifo"
    timeout 60 "$BIN/kbsup" audit import strace "$WORK/fifo" --name alone 2>/dev/null &
    client=$!
    exec 5>"$WORK/fifo"
    for ((i = 0; i < 10000; i++)); do echo "7 unlink(\"/n/$i\") = 0"; done >&5
    wait_until 20 began alone || fail 'it does not begin'
    kill "$client"
    wait_until 20 ended alone || fail 'it does not end'
    exec 5>&-
    run kbsup audit verify alone
    expect_status 3
}

began() {
    kbsup audit sessions --json | grep -q "\"name\": \"$1\""
}

ended() {
    [ "$(kbsup audit sessions --json | json "[s['state'] for s in d if s['name'] == '$1'][0]")" = ended ]
}

tap 'a session is recorded' record_one
tap 'people get what they ask for' asked_by_people
tap 'programs get the words of the contract' asked_by_programs
tap 'pages appear whole or not at all' pages
tap 'the record is held against what was signed' verified
tap 'a log of strace becomes a session' imported
tap 'so does a long one, until its reader is lost' many_imported
tap 'old sessions are dropped, and that shows' pruned_after_one
tap_end
