/* A process of a session: the streams of its terminal or pipes on the guest's channel, spliced to
 * those of whoever is attached.
 *
 * Bytes are reported to their sender as consumed when they were handed to the receiver, so a slow
 * reader slows the process, as a pipe would. While nobody is attached nothing is slowed: output is
 * taken, and the newest of it kept for the next attachment.
 *
 * A process is done when it has exited, its output ended (or LINGER_MS passed: something may hold
 * the other end open) and all of it was handed on. Then Exited goes out, behind the output.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "link_private.h"
#include "proto/control.pb-c.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define LINGER_MS 2000

static void finish_if_done(struct kb_process *p);

/* ---- Splices --------------------------------------------------------------------------------- */

static void splice_init(struct kb_splice *sp)
{
	kb_buf_init(&sp->buf, 2 * KB_STREAM_CREDIT);
}

static void report(struct kb_splice *sp, size_t n)
{
	sp->unreported -= n;
	if (sp->src)
		kb_stream_consumed(sp->src, n);
}

/* Bytes leave the front of the buffer; those at its end are the unreported ones. */
static void take(struct kb_splice *sp, size_t n)
{
	size_t reported = kb_buf_len(&sp->buf) - sp->unreported;

	kb_buf_consume(&sp->buf, n);
	if (n > reported)
		report(sp, n - reported);
}

static void splice_pump(struct kb_splice *sp)
{
	size_t len;
	int64_t n;

	while (sp->dst && (len = kb_buf_len(&sp->buf)) > 0) {
		n = kb_stream_write(sp->dst, kb_buf_data(&sp->buf), len, NULL);
		if (n <= 0)
			break;
		take(sp, (size_t)n);
	}
	if (sp->dst && sp->src_eof && !sp->eof_passed && kb_buf_len(&sp->buf) == 0)
		sp->eof_passed = kb_stream_eof(sp->dst, NULL) == 0;
}

/* Nobody takes the bytes: keep the newest, hold up nobody. */
static void splice_keep(struct kb_splice *sp)
{
	size_t len = kb_buf_len(&sp->buf);

	if (sp->unreported)
		report(sp, sp->unreported);
	if (len > KB_LINK_SCROLLBACK)
		kb_buf_consume(&sp->buf, len - KB_LINK_SCROLLBACK);
}

static void splice_data(struct kb_splice *sp, const uint8_t *data, size_t len)
{
	if (kb_buf_append(&sp->buf, data, len, NULL) < 0) {
		/* Credit bounds what can come; only a lack of memory leads here. */
		kb_log_error("%zu bytes of a terminal were lost: out of memory", len);
		if (sp->src)
			kb_stream_consumed(sp->src, len);
		return;
	}
	sp->unreported += len;
	if (sp->dst)
		splice_pump(sp);
	else
		splice_keep(sp);
}

static void splice_finish(struct kb_splice *sp)
{
	kb_buf_finish(&sp->buf);
	sp->src = sp->dst = NULL;
	sp->unreported = 0;
}

/* ---- The guest's side ------------------------------------------------------------------------ */

static int stream_index(struct kb_process *p, struct kb_stream *st)
{
	return (int)(kb_stream_id(st) - p->stdio);
}

static void guest_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct kb_process *p = arg;

	splice_data(&p->out[stream_index(p, st)], data, len);
	finish_if_done(p);
}

static void guest_writable(struct kb_stream *st, void *arg)
{
	struct kb_process *p = arg;

	if (stream_index(p, st) == 0)
		splice_pump(&p->in);
}

static void guest_eof(struct kb_stream *st, void *arg)
{
	struct kb_process *p = arg;
	struct kb_splice *sp = &p->out[stream_index(p, st)];

	sp->src_eof = true;
	splice_pump(sp);
	finish_if_done(p);
}

static const struct kb_stream_ops guest_stream_ops = {guest_data, guest_writable, guest_eof};

/* ---- The attachment's side ------------------------------------------------------------------- */

static int at_index(struct kb_stream *st)
{
	return (int)kb_stream_id(st) - 1;
}

static void at_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct kb_attachment *at = arg;

	if (at->process && at_index(st) == 0)
		splice_data(&at->process->in, data, len);
	else
		kb_stream_consumed(st, len);
}

static void at_writable(struct kb_stream *st, void *arg)
{
	struct kb_attachment *at = arg;

	if (!at->process)
		return;
	splice_pump(&at->process->out[at_index(st)]);
	finish_if_done(at->process);
}

static void at_eof(struct kb_stream *st, void *arg)
{
	struct kb_attachment *at = arg;

	if (!at->process || at_index(st) != 0 || at->process->tty)
		return;
	at->process->in.src_eof = true;
	splice_pump(&at->process->in);
}

static const struct kb_stream_ops at_stream_ops = {at_data, at_writable, at_eof};

static void tell_attached(struct kb_process *p, bool attached, bool hangup)
{
	Kb__Role__LinkAttached told = KB__ROLE__LINK_ATTACHED__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;
	Kb__Attached attach = KB__ATTACHED__INIT;
	Kb__ToGuest to_guest = KB__TO_GUEST__INIT;

	if (p->id != 0 || p->session->over)
		return;
	told.session = attach.session = kb_link_id(p->session);
	told.attached = attach.attached = attached;
	told.has_hangup = 1;
	told.hangup = hangup;
	out.body_case = KB__ROLE__FROM_LINK__BODY_ATTACHED;
	out.attached = &told;
	kb_link_tell_main(p->session->link, &out);
	to_guest.body_case = KB__TO_GUEST__BODY_ATTACHED;
	to_guest.attached = &attach;
	(void)kb_link_tell_guest(p->session->link, &to_guest, NULL);
}

/* The process goes on without anybody attached. */
static void part(struct kb_process *p)
{
	if (!p->at)
		return;
	p->at->process = NULL;
	p->at = NULL;
	p->in.src = NULL;
	p->in.unreported = 0;
	for (int i = 0; i < 3; i++) {
		p->out[i].dst = NULL;
		splice_keep(&p->out[i]);
	}
}

static void say(struct kb_attachment *at, Kb__Control__FromProcess *msg)
{
	if (kb_channel_send(at->ch, 0, &msg->base, -1, NULL) < 0)
		kb_log_debug("an attachment was not told");
}

static void say_detached(struct kb_attachment *at, const char *reason)
{
	Kb__Control__Detached detached = KB__CONTROL__DETACHED__INIT;
	Kb__Control__FromProcess msg = KB__CONTROL__FROM_PROCESS__INIT;

	detached.reason = (char *)reason;
	msg.body_case = KB__CONTROL__FROM_PROCESS__BODY_DETACHED;
	msg.detached = &detached;
	say(at, &msg);
}

static void say_started(struct kb_process *p)
{
	Kb__Control__Started started = KB__CONTROL__STARTED__INIT;
	Kb__Control__FromProcess msg = KB__CONTROL__FROM_PROCESS__INIT;

	started.effective = p->effective;
	started.n_effective = p->n_effective;
	started.missing = p->missing;
	started.n_missing = p->n_missing;
	started.lane = p->lane;
	started.has_tty = 1;
	started.tty = p->tty;
	msg.body_case = KB__CONTROL__FROM_PROCESS__BODY_STARTED;
	msg.started = &started;
	say(p->at, &msg);
}

static void say_exited(struct kb_process *p)
{
	Kb__Control__Exited exited = KB__CONTROL__EXITED__INIT;
	Kb__Control__FromProcess msg = KB__CONTROL__FROM_PROCESS__INIT;

	exited.exit_code = p->exit_code;
	exited.has_signal = p->signal != 0;
	exited.signal = p->signal;
	msg.body_case = KB__CONTROL__FROM_PROCESS__BODY_EXITED;
	msg.exited = &exited;
	say(p->at, &msg);
}

/* ---- Requests of the attached ---------------------------------------------------------------- */

static void on_resize(struct kb_attachment *at, const Kb__Control__ToProcess *msg)
{
	Kb__Resize resize = KB__RESIZE__INIT;
	Kb__Winsize size = KB__WINSIZE__INIT;
	Kb__ToGuest out = KB__TO_GUEST__INIT;

	if (!at->process->tty)
		return;
	size.rows = KB_MIN(msg->resize->size->rows, UINT16_MAX);
	size.cols = KB_MIN(msg->resize->size->cols, UINT16_MAX);
	resize.session = kb_link_id(at->process->session);
	resize.process_id = at->process->id;
	resize.size = &size;
	out.body_case = KB__TO_GUEST__BODY_RESIZE;
	out.resize = &resize;
	(void)kb_link_tell_guest(at->link, &out, NULL);
}

static void send_signal(struct kb_process *p, uint32_t signo)
{
	Kb__Signal sig = KB__SIGNAL__INIT;
	Kb__ToGuest out = KB__TO_GUEST__INIT;

	sig.session = kb_link_id(p->session);
	sig.process_id = p->id;
	sig.signal = signo;
	out.body_case = KB__TO_GUEST__BODY_SIGNAL;
	out.signal = &sig;
	(void)kb_link_tell_guest(p->session->link, &out, NULL);
}

static void on_signal(struct kb_attachment *at, const Kb__Control__ToProcess *msg)
{
	if (msg->signal->signal >= 1 && msg->signal->signal <= 64)
		send_signal(at->process, msg->signal->signal);
}

static void on_detach(struct kb_attachment *at, const Kb__Control__ToProcess *msg)
{
	struct kb_process *p = at->process;

	part(p);
	say_detached(at, NULL);
	kb_channel_finish(at->ch);
	tell_attached(p, false, false);
	finish_if_done(p);
}

static int at_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	static void (*const handlers[])(struct kb_attachment *, const Kb__Control__ToProcess *) = {
		[KB__CONTROL__TO_PROCESS__BODY_RESIZE] = on_resize,
		[KB__CONTROL__TO_PROCESS__BODY_SIGNAL] = on_signal,
		[KB__CONTROL__TO_PROCESS__BODY_DETACH] = on_detach,
	};
	struct kb_attachment *at = arg;
	Kb__Control__ToProcess *msg = kb__control__to_process__unpack(NULL, len, data);
	size_t kind = msg ? (size_t)msg->body_case : 0;
	bool known = kind < KB_ARRAY_LEN(handlers) && handlers[kind];

	kb_close(&fd);
	if (known && at->process)
		handlers[kind](at, msg);
	if (msg)
		kb__control__to_process__free_unpacked(msg, NULL);
	return known ? 0 : kb_err_set(err, KB_ERR_INVALID, "a malformed or unknown message");
}

/* Lost without a detach: an exec'd process is told as a terminal would; of the first, main decides.
 */
static void at_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_attachment *at = arg;
	struct kb_process *p = at->process;

	if (why)
		kb_log_info("an attachment ended: %s", why->msg);
	if (p) {
		part(p);
		kb_process_no_input(p);
		tell_attached(p, false, true);
		if (p->id != 0 && !p->exited)
			send_signal(p, SIGHUP);
	}
	(void)kb_source_arm(at->link->kick, 0, NULL);
	kb_attachment_destroy(at);
	if (p)
		finish_if_done(p);
}

static const struct kb_channel_ops at_ops = {at_message, at_closed};

void kb_attachment_destroy(struct kb_attachment *at)
{
	if (at->process)
		part(at->process);
	TAILQ_REMOVE(&at->link->attachments, at, entry);
	kb_channel_destroy(at->ch);
	free(at);
}

/* ---- Attaching ------------------------------------------------------------------------------- */

static int attachment_create(
	struct kb_link *link, int fd, struct kb_attachment **ret, struct kb_err *err)
{
	struct kb_attachment *at = calloc(1, sizeof(*at));
	int r;

	if (!at) {
		close(fd);
		return kb_err_nomem(err);
	}
	at->link = link;
	TAILQ_INSERT_TAIL(&link->attachments, at, entry);
	r = kb_channel_create(link->loop, fd, &at_ops, at, &at->ch, err);
	for (uint32_t i = 0; r == 0 && i < 3; i++)
		r = kb_stream_open(at->ch, i + 1, &at_stream_ops, at, &at->streams[i], err);
	if (r < 0)
		kb_attachment_destroy(at);
	else
		*ret = at;
	return r;
}

int kb_process_attach(struct kb_process *p, int fd, struct kb_err *err)
{
	struct kb_attachment *at = NULL, *old = p->at;
	int r = attachment_create(p->session->link, fd, &at, err);

	if (r < 0)
		return r;
	if (old) {
		part(p);
		say_detached(old, "another client attached");
		kb_channel_finish(old->ch);
	}
	p->at = at;
	at->process = p;
	p->in.src = at->streams[0];
	if (p->started) {
		say_started(p);
		tell_attached(p, true, false);
	}
	for (int i = 0; i < 3; i++) {
		p->out[i].dst = at->streams[i];
		p->out[i].eof_passed = false;
		splice_pump(&p->out[i]);
	}
	finish_if_done(p);
	return 0;
}

void kb_process_no_input(struct kb_process *p)
{
	if (p->tty)
		return;
	p->in.src_eof = true;
	splice_pump(&p->in);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void on_linger(void *arg)
{
	struct kb_process *p = arg;

	for (int i = 0; i < 3; i++)
		p->out[i].src_eof = true;
	finish_if_done(p);
}

static int open_streams(struct kb_process *p, struct kb_err *err)
{
	struct kb_link *link = p->session->link;
	int n = p->tty ? 1 : 3, r = 0;

	if (!link->guest)
		return kb_err_set(err, KB_ERR_CLOSED, "the machine is gone");
	p->stdio = link->next_stream;
	link->next_stream += KB_LINK_STREAMS;
	for (int i = 0; r == 0 && i < n; i++)
		r = kb_stream_open(link->guest, p->stdio + (uint32_t)i, &guest_stream_ops, p,
			&p->streams[i], err);
	p->in.dst = p->streams[0];
	for (int i = 0; i < 3; i++) {
		/* What cannot bring anything has ended: stdin's way back, or all but the tty. */
		p->out[i].src = p->streams[i];
		p->out[i].src_eof = p->tty ? i > 0 : i == 0;
	}
	return r;
}

int kb_process_create(struct kb_link_session *s, uint64_t id, bool tty, struct kb_process **ret,
	struct kb_err *err)
{
	struct kb_process *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return kb_err_nomem(err);
	p->session = s;
	p->id = id;
	p->tty = tty;
	splice_init(&p->in);
	for (int i = 0; i < 3; i++)
		splice_init(&p->out[i]);
	TAILQ_INSERT_TAIL(&s->processes, p, entry);
	r = kb_loop_timer(s->link->loop, on_linger, p, &p->linger, err);
	if (r == 0)
		r = open_streams(p, err);
	if (r < 0)
		kb_process_destroy(p);
	else
		*ret = p;
	return r;
}

static void free_lines(char **lines, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(lines[i]);
	free(lines);
}

void kb_process_destroy(struct kb_process *p)
{
	if (p->at) {
		struct kb_attachment *at = p->at;

		part(p);
		kb_channel_finish(at->ch); /* it closes itself, and then itself away */
	}
	for (int i = 0; i < 3; i++) {
		if (p->session->link->guest)
			kb_stream_close(p->streams[i]);
		splice_finish(&p->out[i]);
	}
	splice_finish(&p->in);
	kb_source_destroy(p->linger);
	free_lines(p->effective, p->n_effective);
	free_lines(p->missing, p->n_missing);
	free(p->lane);
	TAILQ_REMOVE(&p->session->processes, p, entry);
	free(p);
}

struct kb_process *kb_process_find(struct kb_link_session *s, uint64_t id)
{
	struct kb_process *p;

	TAILQ_FOREACH(p, &s->processes, entry)
		if (p->id == id)
			return p;
	return NULL;
}

/* Copies, escaped: they end on somebody's screen. */
static size_t copy_lines(char **lines, size_t n, char ***ret)
{
	char **copy = calloc(n + 1, sizeof(char *));
	size_t done = 0;

	for (size_t i = 0; copy && i < n; i++) {
		char *line = kb_escape_dup(lines[i], strlen(lines[i]));

		if (line)
			copy[done++] = line;
	}
	*ret = copy;
	return done;
}

void kb_process_started(struct kb_process *p, const Kb__Started *msg)
{
	p->started = true;
	p->n_effective = copy_lines(msg->effective, msg->n_effective, &p->effective);
	p->n_missing = copy_lines(msg->missing, msg->n_missing, &p->missing);
	p->lane = msg->lane ? kb_escape_dup(msg->lane, strlen(msg->lane)) : NULL;
	if (p->at)
		say_started(p);
}

void kb_process_exited(struct kb_process *p, int32_t exit_code, uint32_t signal)
{
	p->exited = true;
	p->exit_code = exit_code;
	p->signal = signal;
	(void)kb_source_arm(p->linger, LINGER_MS, NULL);
	finish_if_done(p);
}

static bool output_is_out(const struct kb_process *p)
{
	for (int i = 0; i < 3; i++)
		if (!p->out[i].src_eof || (p->at && kb_buf_len(&p->out[i].buf) > 0))
			return false;
	return true;
}

static void tell_exited(struct kb_process *p)
{
	Kb__Role__LinkExited told = KB__ROLE__LINK_EXITED__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;

	told.session = kb_link_id(p->session);
	told.process_id = p->id;
	told.exit_code = p->exit_code;
	told.signal = p->signal;
	out.body_case = KB__ROLE__FROM_LINK__BODY_EXITED;
	out.exited = &told;
	kb_link_tell_main(p->session->link, &out);
}

/* Never frees p: the caller may be one of its streams. That is left to the loop's next turn. */
static void finish_if_done(struct kb_process *p)
{
	if (p->done || !p->exited || !output_is_out(p))
		return;
	p->done = true;
	if (p->at) {
		struct kb_attachment *at = p->at;

		say_exited(p);
		part(p);
		kb_channel_finish(at->ch);
	}
	tell_exited(p);
	(void)kb_source_arm(p->session->link->kick, 0, NULL);
}
