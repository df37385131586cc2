#include "proof.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "policies.h"
#include "supervisor/base/fd.h"

#define PROOF_POLICY "shell"
#define WAIT_MS	     60000

/* Exit statuses of the script, each a claim that does not hold. */
enum { HELD, WROTE_OUTSIDE = 41, NOT_WRITABLE = 42, HAS_NETWORK = 43 };

static const char script[] = "( : >/usr/.kbsup-doctor ) 2>/dev/null && exit 41\n"
			     ": >doctor-was-here || exit 42\n"
			     "[ \"$(ls /sys/class/net 2>/dev/null || echo lo)\" = lo ] || exit 43\n"
			     "exit 0\n";

struct waiting {
	struct kb_loop *loop;
	struct kb_proof *proof;
	struct kb_err failure;
	bool ended;
};

static void on_accepted(struct kb_attach *at, const char *id, const char *name, void *arg)
{
	struct waiting *w = arg;

	snprintf(w->proof->name, sizeof(w->proof->name), "%s", name);
}

static void on_started(struct kb_attach *at, const struct kb_started *started, void *arg)
{
	struct kb_err err;

	(void)kb_attach_eof(at, &err);
}

static void on_output(struct kb_attach *at, int fd, const uint8_t *data, size_t len, void *arg)
{
	kb_attach_consumed(at, fd, len);
}

static void on_writable(struct kb_attach *at, void *arg)
{
}

static void on_exited(struct kb_attach *at, int exit_code, unsigned signal, void *arg)
{
	struct waiting *w = arg;

	w->proof->exit_code = exit_code;
}

static void on_detached(struct kb_attach *at, const char *reason, void *arg)
{
	struct waiting *w = arg;

	kb_err_set(&w->failure, KB_ERR_FAILED, "another client took the session: %s",
		reason ? reason : "");
	kb_loop_stop(w->loop);
}

static void on_ended(struct kb_attach *at, const struct kb_session *session, void *arg)
{
	struct waiting *w = arg;

	w->ended = true;
	w->proof->exit_code = session->exit_code;
	w->proof->records = session->records;
	w->proof->denials = session->denials;
	w->proof->lost = session->lost;
	w->proof->complete = session->complete;
	kb_loop_stop(w->loop);
}

static void on_failed(struct kb_attach *at, const struct kb_err *why, void *arg)
{
	struct waiting *w = arg;

	w->failure = *why;
	kb_loop_stop(w->loop);
}

static void on_late(void *arg)
{
	struct waiting *w = arg;

	kb_err_set(
		&w->failure, KB_ERR_TIMEOUT, "a session did not end within %d s", WAIT_MS / 1000);
	kb_loop_stop(w->loop);
}

static const struct kb_attach_ops ops = {
	.accepted = on_accepted,
	.started = on_started,
	.output = on_output,
	.writable = on_writable,
	.exited = on_exited,
	.detached = on_detached,
	.ended = on_ended,
	.failed = on_failed,
};

static int wait_for_end(struct kb_connection *connection, const struct kb_run *run,
	struct kb_proof *proof, struct kb_err *err)
{
	struct waiting w = {.loop = connection->loop, .proof = proof};
	struct kb_source *deadline = NULL;
	struct kb_attach *at = NULL;
	int r = kb_loop_timer(w.loop, on_late, &w, &deadline, err);

	if (r == 0)
		r = kb_source_arm(deadline, WAIT_MS, err);
	if (r == 0)
		r = kb_client_run(connection->client, run, &ops, &w, &at, err);
	if (r == 0)
		r = kb_loop_run(w.loop, err);
	kb_attach_destroy(at);
	kb_source_destroy(deadline);
	if (r == 0 && !w.ended) {
		*err = w.failure;
		r = -(int)w.failure.code;
	}
	return r;
}

/* The request for the script in workspace; the bundle's memory must live as long. */
static void describe(struct kb_run *run, const struct kb_policies *policies,
	const struct kb_buf *encoded, const char *const *env, const char *workspace)
{
	static const char *const argv[] = {"sh", "-c", script, NULL};

	*run = (struct kb_run){
		.agent = "doctor",
		.machine = "local",
		.workspace = workspace,
		.home = policies->dirs.home,
		.user = "doctor",
		.process = {.argv = argv, .env = env},
		.bundle = kb_buf_data(encoded),
		.bundle_len = kb_buf_len(encoded),
		.policy = PROOF_POLICY,
		.stop_on_hangup = true,
	};
}

static int compile_and_run(struct kb_connection *connection, const char *workspace,
	struct kb_proof *proof, struct kb_err *err)
{
	struct kb_bundle *bundle KB_BUNDLE_CLEANUP = NULL;
	struct kb_policy *policy KB_POLICY_CLEANUP = NULL;
	struct kb_buf encoded KB_BUF_CLEANUP;
	struct kb_policies policies;
	const char *const *env;
	struct kb_run run;
	int64_t start;
	int r = kb_policies_init(&policies, err);

	kb_buf_init(&encoded, KB_BUNDLE_MAX);
	policies.options.workspace = workspace;
	if (r == 0)
		r = kb_policies_compile(&policies, PROOF_POLICY, &policy, &encoded, err);
	if (r == 0)
		r = kb_bundle_parse(kb_buf_data(&encoded), kb_buf_len(&encoded), &bundle, err);
	if (r < 0)
		return r;
	kb_bundle_env(bundle, &env);
	describe(&run, &policies, &encoded, env, workspace);
	start = kb_now_mono();
	r = wait_for_end(connection, &run, proof, err);
	proof->ns = kb_now_mono() - start;
	return r;
}

static void ask_runtime(struct kb_connection *connection, struct kb_proof *proof)
{
	struct kb_status status KB_CLEANUP(kb_status_finish) = {0};
	const char *why;

	if (kb_client_status(connection->client, &status, NULL) < 0)
		return;
	/* What the machine found out about other runtimes stands in parentheses. */
	why = strchr(status.runtime_why, '(');
	snprintf(proof->runtime, sizeof(proof->runtime), "%s%s%s", status.runtime, why ? " " : "",
		why ? why : "");
}

int kb_proof_run(struct kb_proof *proof, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	const char *tmp = getenv("TMPDIR");
	char *workspace KB_FREE = kb_xprintf("%s/kbsup-doctor.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	int r = kb_connect(&connection, true, err);

	if (r < 0)
		return r;
	if (!mkdtemp(workspace))
		return kb_err_set(err, KB_ERR_FAILED, "%s cannot be made", workspace);
	r = compile_and_run(&connection, workspace, proof, err);
	(void)kb_rmtree(workspace, NULL);
	if (r == 0)
		ask_runtime(&connection, proof);
	return r;
}

static const char *broken_claim(const struct kb_proof *proof)
{
	switch (proof->exit_code) {
	case HELD:
		return NULL;
	case WROTE_OUTSIDE:
		return "it could write outside its workspace";
	case NOT_WRITABLE:
		return "it could not write its workspace";
	case HAS_NETWORK:
		return "it saw a network";
	default:
		return "its command failed";
	}
}

void kb_proof_say(const struct kb_proof *proof, struct kb_check *check)
{
	const char *broken = broken_claim(proof);
	int ms = (int)(proof->ns / 1000000);

	if (broken)
		kb_check_say(check, KB_CHECK_FAILED, "a session ran, but %s (exit %d)", broken,
			proof->exit_code);
	else if (!proof->records || proof->lost || !proof->complete)
		kb_check_say(check, KB_CHECK_FAILED,
			"a session ran, but its record has gaps: %d records, %d lost",
			(int)proof->records, (int)proof->lost);
	else
		kb_check_say(check, KB_CHECK_OK,
			"a container started and ended in %d ms, %d records, by %s", ms,
			(int)proof->records, proof->runtime);
	if (check->state != KB_CHECK_OK)
		kb_check_fix(check, "look at it: kbsup audit tree %s", proof->name);
}
