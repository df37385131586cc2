/* Three states: a handshake is under way on `trial`; the stream is carried; or neither, and `retry`
 * will dial. `patience` runs whenever the stream is not carried. */
#include "lasting.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/link.pb-c.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/os.h"
#include "supervisor/base/resume.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

struct kb_lasting {
	struct kb_loop *loop;
	struct kb_lasting_ops ops;
	void *arg;
	struct kb_resume *resume;
	struct kb_carrier *trial; /* NULL: none */
	struct kb_source *retry, *syn, *patience, *later;
	uint8_t link[KB_RESUME_ID], nonce[KB_RESUME_ID];
	int64_t tried; /* when the trial began */
	int64_t retry_ms, patience_ms;
	bool begun; /* the machine knows the stream */
	bool over;
	struct kb_err why;  /* the latest trouble; code 0: none since it was carried */
	struct kb_err lost; /* to be told; code 0: it is not lost */
};

static const struct kb_carrier_ops trial_ops;

/* Told from the loop, so that the user may destroy us. */
static void lose(struct kb_lasting *l, const struct kb_err *why)
{
	if (l->lost.code)
		return;
	l->lost = *why;
	(void)kb_source_arm(l->later, 0, NULL);
}

static void on_later(void *arg)
{
	struct kb_lasting *l = arg;
	struct kb_err why = l->lost;

	if (l->over)
		return;
	l->over = true;
	l->ops.lost(&why, l->arg);
}

static void drop_trial(struct kb_lasting *l)
{
	kb_carrier_destroy(l->trial);
	l->trial = NULL;
	kb_source_disarm(l->syn);
	if (l->ops.hang_up)
		l->ops.hang_up(l->arg);
}

/* ---- Dialling -------------------------------------------------------------------------------- */

static bool send_syn(struct kb_lasting *l)
{
	Kb__LinkSyn syn = KB__LINK_SYN__INIT;
	uint8_t bytes[256];
	struct kb_packet packet = {
		.kind = KB_RESUME_SYN, .offset = kb_resume_handed(l->resume), .data = bytes};

	syn.nonce = (ProtobufCBinaryData){KB_RESUME_ID, l->nonce};
	syn.link = (ProtobufCBinaryData){KB_RESUME_ID, l->link};
	syn.protocol = KB_RESUME_PROTOCOL;
	syn.patience_ms = (uint32_t)l->patience_ms;
	syn.resume = l->begun;
	packet.len = kb__link_syn__pack(&syn, bytes);
	return kb_carrier_send(l->trial, &packet);
}

static int try_once(struct kb_lasting *l, struct kb_err *err)
{
	int fd = -1, r;

	if (kb_os_random(l->nonce, sizeof(l->nonce)) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	r = l->ops.dial(l->arg, &fd, err);
	if (r == 0)
		r = kb_carrier_create(l->loop, fd, &trial_ops, l, &l->trial, err);
	if (r < 0)
		return r;
	l->tried = kb_now_mono();
	(void)send_syn(l);
	return kb_source_arm(l->syn, KB_LASTING_SYN_MS, err);
}

static void try_later(struct kb_lasting *l, const struct kb_err *why)
{
	l->why = *why;
	if (why->code == KB_ERR_NOTFOUND) {
		lose(l, why);
		return;
	}
	(void)kb_source_arm(l->retry, l->retry_ms, NULL);
	l->retry_ms = KB_MIN(2 * l->retry_ms, KB_LASTING_RETRY_MAX);
}

static void on_retry(void *arg)
{
	struct kb_lasting *l = arg;
	struct kb_err err;

	if (!l->trial && !l->lost.code && try_once(l, &err) < 0)
		try_later(l, &err);
}

static void trial_failed(struct kb_lasting *l, const struct kb_err *why)
{
	struct kb_err told = l->why.code ? l->why : *why;

	drop_trial(l);
	try_later(l, &told);
}

static void on_syn(void *arg)
{
	struct kb_lasting *l = arg;
	struct kb_err err;

	if (!l->trial)
		return;
	if (kb_now_mono() - l->tried > KB_LASTING_TRY_MS * INT64_C(1000000)) {
		kb_err_set(&err, KB_ERR_TIMEOUT, "the machine's kbsup-guest does not answer (%d s)",
			KB_LASTING_TRY_MS / 1000);
		trial_failed(l, &err);
		return;
	}
	(void)send_syn(l);
	(void)kb_source_arm(l->syn, KB_LASTING_SYN_MS, NULL);
}

static void on_patience(void *arg)
{
	struct kb_lasting *l = arg;
	struct kb_err err;

	kb_err_set(&err, l->why.code ? l->why.code : KB_ERR_TIMEOUT,
		"the machine could not be reached for %lld s%s%s", (long long)l->patience_ms / 1000,
		l->why.code ? ": " : "", l->why.code ? l->why.msg : "");
	lose(l, &err);
}

/* ---- The handshake --------------------------------------------------------------------------- */

static void refused(struct kb_lasting *l, uint32_t verdict, const char *build)
{
	static const char *const words[] = {
		[KB_RESUME_UNKNOWN] = "the machine's guest does not know the sessions any more",
		[KB_RESUME_OTHER] = "the machine's guest is of a build that speaks otherwise",
		[KB_RESUME_FAILED] = "the machine's guest cannot start",
	};
	struct kb_err err;
	char shown[64];

	kb_escape(shown, sizeof(shown), build, strlen(build));
	if (verdict >= KB_ARRAY_LEN(words) || !words[verdict])
		kb_err_set(&err, KB_ERR_INVALID, "the machine's guest answered nonsense");
	else
		kb_err_set(&err, KB_ERR_CLOSED, "%s (%s)", words[verdict], shown);
	lose(l, &err);
}

static void go_on(struct kb_lasting *l, uint64_t peer_has)
{
	struct kb_carrier *carrier = l->trial;
	struct kb_err err;

	l->trial = NULL;
	l->begun = true;
	l->why.code = 0;
	l->retry_ms = KB_LASTING_RETRY_MS;
	kb_source_disarm(l->syn);
	kb_source_disarm(l->patience);
	if (kb_resume_carry(l->resume, carrier, peer_has, &err) < 0)
		lose(l, &err);
	else
		l->ops.carried(true, NULL, l->arg);
}

static void on_trial_packet(struct kb_carrier *carrier, const struct kb_packet *packet, void *arg)
{
	struct kb_lasting *l = arg;
	Kb__LinkSynAck *ack;

	/* What an earlier stream left on the way is none of ours. */
	if (packet->kind != KB_RESUME_SYNACK)
		return;
	ack = kb__link_syn_ack__unpack(NULL, packet->len, packet->data);
	if (ack && ack->nonce.len == KB_RESUME_ID &&
		memcmp(ack->nonce.data, l->nonce, KB_RESUME_ID) == 0) {
		if (ack->verdict == KB_RESUME_GOES_ON)
			go_on(l, packet->offset);
		else
			refused(l, ack->verdict, ack->build);
	}
	if (ack)
		kb__link_syn_ack__free_unpacked(ack, NULL);
}

static void on_trial_room(struct kb_carrier *carrier, void *arg)
{
}

static void on_trial_ended(struct kb_carrier *carrier, const struct kb_err *why, void *arg)
{
	struct kb_lasting *l = arg;
	struct kb_err err;

	kb_err_set(&err, KB_ERR_CLOSED, "%s", why ? why->msg : "the connection was closed");
	if (!l->begun && l->why.code)
		lose(l, &l->why);
	trial_failed(l, &err);
}

static const struct kb_carrier_ops trial_ops = {on_trial_packet, on_trial_room, on_trial_ended};

/* ---- The stream ------------------------------------------------------------------------------ */

static void on_stranded(struct kb_resume *resume, const struct kb_err *why, void *arg)
{
	struct kb_lasting *l = arg;
	struct kb_err told = l->why.code ? l->why : *why;

	if (l->ops.hang_up)
		l->ops.hang_up(l->arg);
	if (l->lost.code)
		return;
	kb_log_warn("the machine's carrier is lost: %s", told.msg);
	l->why = told;
	l->ops.carried(false, &told, l->arg);
	(void)kb_source_arm(l->patience, l->patience_ms, NULL);
	(void)kb_source_arm(l->retry, 0, NULL);
}

/* A late answer to a SYN that was sent twice. */
static void on_handshake(struct kb_resume *resume, const struct kb_packet *packet, void *arg)
{
}

static void on_over(struct kb_resume *resume, void *arg)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_CLOSED, "the machine's guest has ended");
	lose(arg, &err);
}

static const struct kb_resume_ops resume_ops = {on_stranded, on_handshake, on_over};

void kb_lasting_broke(struct kb_lasting *l, const struct kb_err *why)
{
	l->why = *why;
}

/* ---- The object ------------------------------------------------------------------------------ */

static int64_t patience(void)
{
	const char *text = getenv("KBSUP_PATIENCE");
	uint64_t seconds;

	return text && kb_parse_u64(text, &seconds) && seconds <= 86400 ? (int64_t)seconds * 1000
									: KB_LASTING_MS;
}

static int set_up(struct kb_lasting *l, int fd, struct kb_err *err)
{
	int r = kb_resume_create(l->loop, fd, &resume_ops, l, &l->resume, err);

	if (r == 0 && kb_os_random(l->link, sizeof(l->link)) < 0)
		r = kb_err_sys(err, errno, "no random bytes");
	if (r == 0)
		r = kb_loop_timer(l->loop, on_retry, l, &l->retry, err);
	if (r == 0)
		r = kb_loop_timer(l->loop, on_syn, l, &l->syn, err);
	if (r == 0)
		r = kb_loop_timer(l->loop, on_patience, l, &l->patience, err);
	if (r == 0)
		r = kb_loop_timer(l->loop, on_later, l, &l->later, err);
	if (r == 0)
		r = kb_source_arm(l->patience, l->patience_ms, err);
	return r < 0 ? r : try_once(l, err);
}

int kb_lasting_create(struct kb_loop *loop, const struct kb_lasting_ops *ops, void *arg,
	struct kb_lasting **ret, int *ret_fd, struct kb_err *err)
{
	struct kb_lasting *l = calloc(1, sizeof(*l));
	KB_CLOSE int far = -1;
	int pair[2], r;

	if (!l)
		return kb_err_nomem(err);
	*l = (struct kb_lasting){.loop = loop,
		.ops = *ops,
		.arg = arg,
		.retry_ms = KB_LASTING_RETRY_MS,
		.patience_ms = patience()};
	r = kb_fd_socketpair(false, pair, err);
	if (r == 0) {
		far = pair[1];
		r = set_up(l, pair[0], err);
	}
	if (r < 0) {
		kb_lasting_destroy(l);
		return r;
	}
	*ret = l;
	*ret_fd = kb_steal_fd(&far);
	return 0;
}

void kb_lasting_destroy(struct kb_lasting *l)
{
	if (!l)
		return;
	kb_carrier_destroy(l->trial);
	kb_resume_destroy(l->resume);
	kb_source_destroy(l->retry);
	kb_source_destroy(l->syn);
	kb_source_destroy(l->patience);
	kb_source_destroy(l->later);
	free(l);
}
