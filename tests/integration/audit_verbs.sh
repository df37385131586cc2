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
    expect_out '+00:00:00.'
    expect_out 'denied EACCES'
    run kbsup audit stats last
    expect_out 'busiest processes'
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
    run kbsup audit verify all
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
    sed -i 's/ pruned \([0-9]*\)[0-9] / pruned \10 /' "$XDG_STATE_HOME/kbsup/store.heads"
    run kbsup audit verify all
    expect_status 1
    expect_out 'the whole session has been removed'
}

tap 'a session is recorded' record_one
tap 'people get what they ask for' asked_by_people
tap 'programs get the words of the contract' asked_by_programs
tap 'pages appear whole or not at all' pages
tap 'the record is held against what was signed' verified
tap 'old sessions are dropped, and that shows' pruned_after_one
tap_end
