#!/bin/bash
# Policies against recorded sessions: what is learned from a session lets it run again and no more;
# what replay says a policy would deny is what that policy then denies.
# shellcheck disable=SC2016 # what stands in single quotes is for the shell in the session
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

# A policy that gives more than the work below needs, to be recorded under.
cat >"$WORK/wide.policy" <<E2
policy wide version 1 extends project, git, node {
    fs read "$WORK/data" "$WORK/more"
    fs write "$WORK/out"
    env set SITE "here"
}
E2
mkdir -p "$WORK/data/in" "$WORK/more" "$WORK/out" "$WS/src"
for i in 1 2 3 4; do echo "$i" >"$WORK/data/in/$i"; done
echo other >"$WORK/more/other"
printf 'int main(void) { return 0; }\n' >"$WS/src/main.c"

cat >"$WS/work.sh" <<'E2'
set -e
cat "$1"/data/in/[1-4] >/dev/null
mkdir -p build
cp src/main.c build/copy.c
cat build/copy.c >"$1/out/result"
cp /bin/true build/tool
./build/tool
rm -r build
cat .absent 2>/dev/null || :
E2

wide() { # session name, command…
    local name=$1
    shift
    run kbsup run --workspace "$WS" --policy "$WORK/wide.policy" --name "$name" -- "$@"
    expect_status 0
}

denials() { # session: "EVENT PATH" of each denied record
    run kbsup audit query "$1" 'decision = denied' --json
    expect_status 0
    printf '%s\n' "$out" | python3 -c '
import json, sys
for line in sys.stdin:
    if line.strip():
        d = json.loads(line)
        print(d["syscall"], d.get("path", d.get("host", "")))' | sort -u
}

work_is_learned() {
    wide work1 sh work.sh "$WORK"
    run kbsup policy learn work1 -o "$WORK/learned.policy"
    expect_status 0
    text=$(cat "$WORK/learned.policy")
    case $text in *"fs read \"$WORK/data/in\""*) ;; *) fail "the directory is not given: $text" ;; esac
    case $text in *"$WORK/more"*'#'*) fail "what was not used is given: $text" ;; esac
    case $text in *'env set SITE'*) ;; *) fail "what no record shows is not said: $text" ;; esac
    run kbsup policy check "$WORK/learned.policy"
    expect_status 0
    run kbsup run --workspace "$WS" --policy "$WORK/learned.policy" --name work2 -- sh work.sh "$WORK"
    expect_status 0
    [ -z "$(denials work2)" ] || fail "denied to the same work: $(denials work2)"
    run kbsup policy replay --policy "$WORK/learned.policy" work1
    expect_status 0
    expect_out ': none would meet new denials'
}

misbehaviour_is_denied() {
    run kbsup run --workspace "$WS" --policy "$WORK/learned.policy" --name bad1 -- \
        sh -c 'cat "$1/more/other"; echo x >"$1/data/in/1"; :' sh "$WORK"
    denied=$(denials bad1)
    case $denied in *"openat $WORK/more/other"*) ;; *) fail "read: $denied" ;; esac
    case $denied in *"openat $WORK/data/in/1"*) ;; *) fail "written: $denied" ;; esac
}

# A clone, a build, and an npm install from a local cache, as a developer's session has them.
real_work() {
    mkdir "$WORK/origin" "$WORK/dep"
    (
        cd "$WORK/origin"
        git init -q -b main .
        git config user.email t@example.org
        git config user.name t
        printf 'all: app\napp: main.o util.o\n\tcc -o app main.o util.o\n' >Makefile
        printf 'int util(void);\nint main(void) { return util(); }\n' >main.c
        printf 'int util(void) { return 0; }\n' >util.c
        printf '{"name":"app","version":"1.0.0","dependencies":{"dep":"file:%s/dep-1.0.0.tgz"}}\n' \
            "$WORK" >package.json
        git add . && git commit -qm one
        printf '{"name":"dep","version":"1.0.0","main":"i.js"}\n' >"$WORK/dep/package.json"
        echo 'module.exports = 7' >"$WORK/dep/i.js"
    )
    cat >"$WS/real.sh" <<'E2'
set -e
rm -rf app
git clone -q "$1/origin" app
cd app
make -s
./app
echo change >>util.c
git diff --stat >/dev/null
if command -v npm >/dev/null; then
    npm install --offline --no-audit --no-fund --cache "$1/cache" --loglevel=error >/dev/null
    node -e 'if (require("dep") !== 7) process.exit(3)'
fi
E2
    if command -v npm >/dev/null; then
        (cd "$WORK" && npm pack --silent ./dep >/dev/null &&
            npm cache add --cache "$WORK/cache" "$WORK/dep-1.0.0.tgz") || fail 'npm cannot pack'
    fi
    mkdir -p "$WORK/cache"
    cat >"$WORK/developer.policy" <<E2
policy developer version 1 extends project, git, node {
    fs read "$WORK/origin"
    fs read "$WORK/dep-1.0.0.tgz" if-available
    fs write "$WORK/cache"
    fs read "$WORK/more"
}
E2
}

real_work_is_learned() {
    real_work
    run kbsup run --workspace "$WS" --policy "$WORK/developer.policy" --name real1 -- sh real.sh "$WORK"
    expect_status 0
    [ -z "$(denials real1)" ] || before=$(denials real1)
    run kbsup policy learn real1 --name learned-real -o "$WORK/real.policy"
    expect_status 0
    run kbsup policy test "$WORK/real.policy"
    expect_status 0
    rm -rf "$WS/app"
    run kbsup run --workspace "$WS" --policy "$WORK/real.policy" --name real2 -- sh real.sh "$WORK"
    expect_status 0
    [ "$(denials real2)" = "${before:-}" ] || fail "newly denied: $(denials real2)"
    # What it had no need of: a seeded misbehaviour.
    run kbsup run --workspace "$WS" --policy "$WORK/real.policy" --name real3 -- \
        sh -c 'sh real.sh "$1" && cat "$1/more/other"; echo x >>"$1/origin/.git/config"' sh "$WORK"
    denied=$(denials real3)
    case $denied in *"openat $WORK/more/other"*) ;; *) fail "read: $denied" ;; esac
    case $denied in *"openat $WORK/origin/.git/config"*) ;; *) fail "written: $denied" ;; esac
}

# The same set of (call, path) from the prediction and from the live run.
replay_is_exact() {
    cat >"$WORK/strict.policy" <<E2
policy strict version 1 extends wide {
    fs deny "$WORK/data/in/3" "$WORK/out"
    workspace hide "src"
}
E2
    mkdir -p "$XDG_CONFIG_HOME/kbsup"
    chmod 700 "$XDG_CONFIG_HOME/kbsup"
    cp "$WORK/wide.policy" "$XDG_CONFIG_HOME/kbsup/"
    tries=(sh -c 'cat "$1"/data/in/[1-4] src/main.c; echo x >"$1/out/y"; echo x >>src/main.c
        cat work.sh >/dev/null; mkdir d; touch d/e; cat d/e; rm -r d; :' sh "$WORK")
    wide try1 "${tries[@]}"
    run kbsup policy replay --policy "$WORK/strict.policy" try1 --json
    expect_status 1
    predicted=$(printf '%s' "$out" | python3 -c '
import json, os, re, sys
for c in json.load(sys.stdin)["changes"]:
    if c["change"] == "newly denied":
        call, path = re.match(r"(\w+) (.*) \(\w+\)$", c["event"]).groups()
        print(call, os.environ["HOME"] + path[1:] if path.startswith("~") else path)' | sort -u)
    run kbsup run --workspace "$WS" --policy "$WORK/strict.policy" --name try2 -- "${tries[@]}"
    [ "$predicted" = "$(denials try2)" ] ||
        fail "predicted:
$predicted
denied:
$(denials try2)"
}

records_are_explained() {
    wide look1 cat "$WORK/data/in/3"
    run kbsup audit query look1 "path = \"$WORK/data/in/3\"" --json
    seq=$(printf '%s' "$out" | json 'd["seq"]')
    run kbsup policy explain --record "look1:$seq"
    expect_status 0
    expect_out 'allowed by wide.policy:2'
    run kbsup policy explain "$WORK/strict.policy" --record "look1:$seq"
    expect_status 0
    expect_out 'denied'
    expect_out 'strict.policy:2'
    run kbsup policy explain --record look1:999999
    expect_status 1
    expect_err 'has no record 999999'
    run kbsup policy explain --record look1
    expect_status 2
    run kbsup policy explain shell --record "look1:$seq" read /x
    expect_status 2
}

# The line offered with a denial, put into a policy that extends the session's, allows what was denied.
offered_lines_allow() {
    local seq line offered=0
    mkdir -p "$HOME/.ssh"
    echo key >"$HOME/.ssh/id"
    echo text >"$HOME/other"
    run kbsup run --workspace "$WS" --name offers -- sh -c '
        cat "$1/other" "$1/.ssh/id" "$2/data/in/1"; echo x >/usr/x; unshare -U true; mount -t tmpfs x /tmp
        python3 -c "import ctypes; ctypes.CDLL(None).syscall(250, 0, -3, 0)"' sh "$HOME" "$WORK"
    kbsup audit query offers 'decision = denied' --json >"$WORK/offers.jsonl"
    while IFS=$'\t' read -r seq line; do
        printf 'policy offered version 1 extends shell {\n    %s\n}\n' "${line//…/a test}" >"$WORK/offered.policy"
        run kbsup policy explain "$WORK/offered.policy" --record "offers:$seq"
        expect_status 0
        case $out in *$'\nallowed by '*) ;; *) fail "not allowed by: $line" ;; esac
        offered=$((offered + 1))
    done < <(json '["%d\t%s" % (r["seq"], r["remedy"]) for r in L if "remedy" in r]' <"$WORK/offers.jsonl")
    [ "$offered" -ge 6 ] || fail "only $offered lines were offered"
}

words_are_checked() {
    run kbsup policy replay work1
    expect_status 2
    expect_err -- '--policy FILE'
    run kbsup policy replay --policy shell wrk1
    expect_status 1
    expect_err 'work1'
    run kbsup policy replay --policy nowhere work1
    expect_status 1
    run kbsup policy replay --policy shell --since now
    expect_status 1
    expect_err 'no session began since'
    run kbsup policy learn work1 --name 'a b'
    expect_status 2
    run kbsup policy learn work1 --base "$WORK/wide.policy" --json
    expect_status 0
    [ "$(printf '%s' "$out" | json 'd["base"]')" = "$WORK/wide.policy" ] || fail "$out"
}

tap 'a learned policy lets the session run again' work_is_learned
tap 'what was not seen stays denied' misbehaviour_is_denied
tap 'a clone, a build and an install run again under what was learned' real_work_is_learned
tap 'replay says what the policy then denies' replay_is_exact
tap 'a record is explained, by its own policy and by another' records_are_explained
tap 'the line that is offered with a denial allows it' offered_lines_allow
tap 'mistakes are named' words_are_checked
tap_end
