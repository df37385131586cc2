/* Theory of operation.
 *
 * With a terminal, ours is raw: every key goes to the session's own terminal, which makes signals
 * and job control of ^C and ^Z there, not here. Only the detach keys are taken out. With pipes, the
 * signals that reach this program are passed on, so that ^C, kill(1) and timeout(1) do what they
 * would do to the command itself.
 *
 * Stopping (^Z with pipes, or SIGTSTP from outside): the process in the session is stopped too, the
 * terminal is given back, and then this program stops itself. It is after the SIGCONT that it reads
 * on: nothing has to watch for that signal.
 *
 * Output that cannot be written because nobody reads any more is what SIGPIPE is for: the process
 * gets one, and what else it writes is dropped.
 *
 * The end is reached when the last word came (`ended`, `detached`, `failed`; for exec `exited`) and
 * what was received is written out.
 */
#include "pump.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "feed.h"
#include "modes.h"
#include "prompt.h"
#include "sink.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/fd.h"
#include "term.h"

#define KEYS_WAIT_MS   500		    /* a started detach sequence is passed on after that */
#define UNSENT_MAX     (KB_FEED_CHUNK + 64) /* input read and not yet taken */
#define STOP_DELAY_MS  20	    /* for the word to the session to leave, before we stop */
#define KILL_AFTER     3	    /* interrupts in a row … */
#define KILL_WINDOW_NS 2000000000LL /* … each this close to the one before */
#define FLUSH_MS       3000	    /* for a terminal that does not take the last output */

static const int passed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
#define N_SIGNALS (KB_ARRAY_LEN(passed_on) + 2) /* and SIGTSTP, SIGWINCH */

struct kb_pump {
	struct kb_pump_options o;
	struct kb_attach *at;
	struct kb_feed in;
	struct kb_buf unsent;
	struct kb_sink out[2];
	struct kb_modes modes;
	struct kb_prompt prompt;
	struct kb_buf held; /* output that waits for the prompt to go */
	struct kb_source *signals[N_SIGNALS];
	struct kb_source *keys_timer, *stop_timer, *flush_timer;
	bool raw, over, hung_up;
	bool eof_due; /* once what is unsent has left */
	int interrupts;
	int64_t interrupted; /* when the last one came */
	struct kb_pump_end end;
	struct kb_err failure; /* code 0: none */
};

static void finish_if_drained(struct kb_pump *p)
{
	if (p->over && !kb_sink_waiting(&p->out[0]) && !kb_sink_waiting(&p->out[1]))
		kb_loop_stop(p->o.loop);
}

static void hide_prompt(struct kb_pump *p);

static void over(struct kb_pump *p)
{
	p->over = true;
	hide_prompt(p);
	kb_feed_stop(&p->in);
	(void)kb_source_arm(p->flush_timer, FLUSH_MS, NULL);
	finish_if_drained(p);
}

static void fail_with(struct kb_pump *p, const struct kb_err *why)
{
	if (!p->failure.code)
		p->failure = *why;
	over(p);
}

/* That the other end has gone is no failure here: the last word is still to come, and says why. */
static void check(struct kb_pump *p, int64_t r, const struct kb_err *err)
{
	if (r == -KB_ERR_CLOSED)
		kb_feed_stop(&p->in);
	else if (r < 0)
		fail_with(p, err);
}

/* ---- Input ----------------------------------------------------------------------------------- */

static size_t in_room(void *arg)
{
	struct kb_pump *p = arg;

	return p->at && !kb_buf_len(&p->unsent) ? kb_attach_writable(p->at, 1) : 0;
}

/* What was read when it did not fit any more: held keys come on top of what there was room for. */
static void send_rest(struct kb_pump *p)
{
	size_t len = kb_buf_len(&p->unsent);
	struct kb_err err;
	int64_t n = len ? kb_attach_write(p->at, kb_buf_data(&p->unsent), len, &err) : 0;

	check(p, n, &err);
	if (n > 0)
		kb_buf_consume(&p->unsent, (size_t)n);
	if (p->eof_due && !p->over && !kb_buf_len(&p->unsent)) {
		p->eof_due = false;
		check(p, kb_attach_eof(p->at, &err), &err);
	}
}

static void send(struct kb_pump *p, const uint8_t *data, size_t len)
{
	struct kb_err err;

	check(p, kb_buf_append(&p->unsent, data, len, &err), &err);
	send_rest(p);
}

static void detach(struct kb_pump *p)
{
	struct kb_err err;

	kb_feed_stop(&p->in);
	check(p, kb_attach_detach(p->at, &err), &err);
}

static void prompt_keys(struct kb_pump *p, const uint8_t *data, size_t len);

static void in_data(const uint8_t *data, size_t len, void *arg)
{
	struct kb_pump *p = arg;
	uint8_t out[KB_FEED_CHUNK + KB_KEYS_MAX];
	bool leave;
	size_t n;

	if (p->prompt.shown) {
		prompt_keys(p, data, len);
		return;
	}
	n = kb_keys_feed(&p->o.keys, data, len, out, &leave);
	send(p, out, n);
	if (leave)
		detach(p);
	else if (p->o.keys.matched)
		(void)kb_source_arm(p->keys_timer, KEYS_WAIT_MS, NULL);
}

static void on_keys_timer(void *arg)
{
	struct kb_pump *p = arg;
	uint8_t held[KB_KEYS_MAX];
	size_t n = kb_keys_flush(&p->o.keys, held);

	if (!p->over)
		send(p, held, n);
}

static void hang_up(struct kb_pump *p);

static void in_end(int errnum, void *arg)
{
	struct kb_pump *p = arg;
	struct kb_err err;

	if (p->o.tty)
		hang_up(p);
	else if (kb_buf_len(&p->unsent))
		p->eof_due = true;
	else
		check(p, kb_attach_eof(p->at, &err), &err);
}

static const struct kb_feed_ops in_ops = {.room = in_room, .data = in_data, .end = in_end};

/* ---- Output ---------------------------------------------------------------------------------- */

static int fd_of(const struct kb_pump *p, const struct kb_sink *sink)
{
	return sink == &p->out[0] ? STDOUT_FILENO : STDERR_FILENO;
}

static void show_prompt(struct kb_pump *p);

static void out_drained(struct kb_sink *sink, size_t len, void *arg)
{
	struct kb_pump *p = arg;

	if (p->at)
		kb_attach_consumed(p->at, fd_of(p, sink), len);
	show_prompt(p);
	finish_if_drained(p);
}

static void out_broken(struct kb_sink *sink, int errnum, void *arg)
{
	struct kb_pump *p = arg;
	struct kb_err err;

	if (errnum != EPIPE && !p->end.output_errnum)
		p->end.output_errnum = errnum;
	if (p->o.tty)
		hang_up(p);
	else if (!p->over)
		check(p, kb_attach_signal(p->at, SIGPIPE, &err), &err);
	finish_if_drained(p);
}

static const struct kb_sink_ops out_ops = {.drained = out_drained, .broken = out_broken};

/* ---- The terminal ---------------------------------------------------------------------------- */

static void send_size(struct kb_pump *p)
{
	uint32_t rows, cols;
	struct kb_err err;

	if (p->o.tty && !p->over && kb_term_size(STDIN_FILENO, &rows, &cols))
		check(p, kb_attach_resize(p->at, rows, cols, &err), &err);
}

static int enter_terminal(struct kb_pump *p, struct kb_err *err)
{
	int r = kb_term_raw(STDIN_FILENO, err);

	if (r == 0)
		p->raw = true;
	return r;
}

/* ---- Questions ------------------------------------------------------------------------------- */

/* Past the sink: that counts only what the session wrote. */
static void draw(struct kb_buf *out)
{
	(void)kb_fd_write_all(STDOUT_FILENO, kb_buf_data(out), kb_buf_len(out), NULL);
}

#define DRAWING_MAX (64u << 10)

static void show_prompt(struct kb_pump *p)
{
	struct kb_buf out KB_BUF_CLEANUP;

	kb_buf_init(&out, DRAWING_MAX);
	if (!p->raw || p->over || p->prompt.shown || !p->prompt.len || kb_sink_waiting(&p->out[0]))
		return;
	kb_prompt_show(&p->prompt, &p->modes, &out);
	draw(&out);
}

/* The session's screen is back; one that was cleared is drawn anew by whoever is asked to, by a
 * change of size. */
static void hide_prompt(struct kb_pump *p)
{
	struct kb_buf out KB_BUF_CLEANUP;
	struct kb_err err = {0};
	uint32_t rows, cols;

	kb_buf_init(&out, DRAWING_MAX);
	if (!p->prompt.shown)
		return;
	kb_prompt_hide(&p->prompt, &out);
	draw(&out);
	if (kb_buf_len(&p->held))
		check(p,
			kb_sink_write(
				&p->out[0], kb_buf_data(&p->held), kb_buf_len(&p->held), &err),
			&err);
	kb_buf_consume(&p->held, kb_buf_len(&p->held));
	if (!p->over && p->prompt.alternate && kb_term_size(STDIN_FILENO, &rows, &cols) &&
		rows > 1) {
		check(p, kb_attach_resize(p->at, rows - 1, cols, &err), &err);
		send_size(p);
	}
}

static void prompt_keys(struct kb_pump *p, const uint8_t *data, size_t len)
{
	const struct kb_question *question = &p->prompt.list[0];
	struct kb_buf out KB_BUF_CLEANUP;
	const struct kb_answer_word *word;
	char *said KB_FREE = NULL;
	struct kb_err err;
	bool done;

	kb_buf_init(&out, DRAWING_MAX);
	word = kb_prompt_keys(&p->prompt, data, len, &out, &done);
	if (word)
		check(p, kb_attach_answer(p->at, question->number, word->verdict, &err), &err);
	if (word && word->keep) {
		kb_answer_keep(question, &said);
		kb_prompt_tell(&p->prompt, said, &out);
	} else if (word) {
		done = true;
		p->prompt.told = true; /* it leaves the list with its screen */
	}
	draw(&out);
	if (done) {
		hide_prompt(p);
		show_prompt(p);
	}
}

static void at_question(struct kb_attach *at, const struct kb_question *question, void *arg)
{
	struct kb_pump *p = arg;

	if (!p->o.tty)
		kb_prompt_line(question);
	else if (kb_prompt_add(&p->prompt, question))
		show_prompt(p);
}

static void at_question_over(struct kb_attach *at, uint64_t number, const char *how, void *arg)
{
	struct kb_pump *p = arg;

	if (kb_prompt_drop(&p->prompt, number)) {
		hide_prompt(p);
		show_prompt(p);
	}
}

/* Give the terminal back as a shell expects it. */
static void leave_terminal(struct kb_pump *p)
{
	char reset[KB_MODES_RESET_MAX];
	size_t n;

	if (!p->raw)
		return;
	hide_prompt(p);
	p->raw = false;
	n = kb_modes_reset(&p->modes, reset);
	if (n && !p->hung_up)
		(void)kb_fd_write_all(STDOUT_FILENO, reset, n, NULL);
	kb_term_restore();
}

/* ---- Signals --------------------------------------------------------------------------------- */

static void pass_on(struct kb_pump *p, int signo)
{
	struct kb_err err;

	if (!p->over && p->at)
		check(p, kb_attach_signal(p->at, signo, &err), &err);
}

/* The terminal is gone. A command that was run here is told, as a shell would tell it; somebody
 * who only looked in leaves. */
static void hang_up(struct kb_pump *p)
{
	if (p->hung_up)
		return;
	p->hung_up = true;
	kb_feed_stop(&p->in);
	if (p->o.verb == KB_PUMP_ATTACH)
		detach(p);
	else
		pass_on(p, SIGHUP);
}

/* Somebody insists. */
static bool insists(struct kb_pump *p)
{
	int64_t now = kb_now_mono();

	p->interrupts = now - p->interrupted < KILL_WINDOW_NS ? p->interrupts + 1 : 1;
	p->interrupted = now;
	return p->interrupts >= KILL_AFTER;
}

static void on_stop_timer(void *arg)
{
	struct kb_pump *p = arg;
	bool was_raw = p->raw;
	struct kb_err err;

	leave_terminal(p);
	raise(SIGSTOP);
	if (was_raw)
		check(p, enter_terminal(p, &err), &err);
	pass_on(p, SIGCONT);
	send_size(p);
}

static void on_signal(int signo, void *arg)
{
	struct kb_pump *p = arg;

	if (!p->at)
		return;
	if (signo == SIGWINCH) {
		send_size(p);
	} else if (signo == SIGTSTP) {
		if (!p->o.tty)
			pass_on(p, SIGSTOP);
		(void)kb_source_arm(p->stop_timer, STOP_DELAY_MS, NULL);
	} else if (signo == SIGHUP && p->o.tty) {
		hang_up(p);
	} else if (p->o.verb == KB_PUMP_ATTACH && signo == SIGTERM) {
		detach(p);
	} else if ((signo == SIGINT || signo == SIGTERM) && insists(p)) {
		pass_on(p, SIGKILL);
	} else {
		pass_on(p, signo);
	}
}

static int watch_signals(struct kb_pump *p, struct kb_err *err)
{
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < KB_ARRAY_LEN(passed_on); i++)
		r = kb_loop_signal(p->o.loop, passed_on[i], on_signal, p, &p->signals[n++], err);
	if (r == 0)
		r = kb_loop_signal(p->o.loop, SIGTSTP, on_signal, p, &p->signals[n++], err);
	if (r == 0)
		r = kb_loop_signal(p->o.loop, SIGWINCH, on_signal, p, &p->signals[n++], err);
	return r;
}

/* ---- What the supervisor says ---------------------------------------------------------------- */

static void at_accepted(struct kb_attach *at, const char *id, const char *name, void *arg)
{
	struct kb_pump *p = arg;

	snprintf(p->end.id, sizeof(p->end.id), "%s", id);
	snprintf(p->end.name, sizeof(p->end.name), "%s", name);
}

static void at_started(struct kb_attach *at, const struct kb_started *started, void *arg)
{
	struct kb_pump *p = arg;
	struct kb_err err;
	int r = 0;

	p->o.tty = started->tty && p->o.tty;
	if (p->o.started)
		p->o.started(&p->end, started, p->o.arg);
	if (p->o.tty)
		r = enter_terminal(p, &err);
	else
		p->o.keys.len = 0;
	check(p, r, &err);
	send_size(p);
	kb_feed_more(&p->in);
}

static void at_output(struct kb_attach *at, int fd, const uint8_t *data, size_t len, void *arg)
{
	struct kb_pump *p = arg;
	struct kb_err err;

	if (p->raw)
		kb_modes_feed(&p->modes, data, len);
	if (p->prompt.shown) {
		check(p, kb_buf_append(&p->held, data, len, &err), &err);
		return;
	}
	check(p, kb_sink_write(&p->out[fd == STDERR_FILENO], data, len, &err), &err);
}

static void at_writable(struct kb_attach *at, void *arg)
{
	struct kb_pump *p = arg;

	send_rest(p);
	kb_feed_more(&p->in);
}

static void at_exited(struct kb_attach *at, int exit_code, unsigned signal, void *arg)
{
	struct kb_pump *p = arg;

	p->end.exit_code = exit_code;
	kb_feed_stop(&p->in);
	if (p->o.verb == KB_PUMP_EXEC)
		over(p);
}

static void at_detached(struct kb_attach *at, const char *reason, void *arg)
{
	struct kb_pump *p = arg;

	p->end.detached = true;
	snprintf(p->end.detach_reason, sizeof(p->end.detach_reason), "%s", reason ? reason : "");
	over(p);
}

static char *copy(const char *text)
{
	return kb_xstrdup(text ? text : "");
}

static void at_ended(struct kb_attach *at, const struct kb_session *session, void *arg)
{
	struct kb_pump *p = arg;
	struct kb_session *s = &p->end.session;

	*s = *session;
	s->name = copy(session->name);
	s->agent = copy(session->agent);
	s->machine = copy(session->machine);
	s->user = copy(session->user);
	s->state = copy(session->state);
	s->workspace = copy(session->workspace);
	s->reason = copy(session->reason);
	p->end.has_session = true;
	p->end.exit_code = session->exit_code;
	over(p);
}

static void at_failed(struct kb_attach *at, const struct kb_err *why, void *arg)
{
	fail_with(arg, why);
}

const struct kb_attach_ops kb_pump_ops = {
	.accepted = at_accepted,
	.started = at_started,
	.output = at_output,
	.writable = at_writable,
	.exited = at_exited,
	.detached = at_detached,
	.ended = at_ended,
	.failed = at_failed,
	.question = at_question,
	.question_over = at_question_over,
};

/* ---- Life ------------------------------------------------------------------------------------ */

static void on_flush_timer(void *arg)
{
	struct kb_pump *p = arg;

	/* Only a terminal may be given up on: a slow pipe still gets every byte. */
	if (p->o.tty)
		kb_loop_stop(p->o.loop);
}

static int set_up(struct kb_pump *p, struct kb_err *err)
{
	struct kb_loop *loop = p->o.loop;
	int r = kb_feed_init(&p->in, loop, STDIN_FILENO, &in_ops, p, err);

	for (int i = 0; r == 0 && i < 2; i++)
		r = kb_sink_init(
			&p->out[i], loop, i ? STDERR_FILENO : STDOUT_FILENO, &out_ops, p, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_keys_timer, p, &p->keys_timer, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_stop_timer, p, &p->stop_timer, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_flush_timer, p, &p->flush_timer, err);
	return r < 0 ? r : watch_signals(p, err);
}

int kb_pump_create(const struct kb_pump_options *options, struct kb_pump **ret, struct kb_err *err)
{
	struct kb_pump *p = kb_xcalloc(1, sizeof(*p));
	int r;

	p->o = *options;
	kb_buf_init(&p->unsent, UNSENT_MAX);
	kb_modes_init(&p->modes);
	kb_buf_init(&p->held, KB_SINK_MAX);
	r = set_up(p, err);
	if (r < 0) {
		kb_pump_destroy(p);
		return r;
	}
	*ret = p;
	return 0;
}

void kb_pump_destroy(struct kb_pump *p)
{
	if (!p)
		return;
	leave_terminal(p);
	for (size_t i = 0; i < N_SIGNALS; i++)
		kb_source_destroy(p->signals[i]);
	kb_source_destroy(p->keys_timer);
	kb_source_destroy(p->stop_timer);
	kb_source_destroy(p->flush_timer);
	kb_feed_finish(&p->in);
	kb_buf_finish(&p->unsent);
	kb_buf_finish(&p->held);
	kb_prompt_finish(&p->prompt);
	kb_sink_finish(&p->out[0]);
	kb_sink_finish(&p->out[1]);
	free(p);
}

int kb_pump_run(
	struct kb_pump *p, struct kb_attach *at, struct kb_pump_end *ret, struct kb_err *err)
{
	int r;

	p->at = at;
	r = kb_loop_run(p->o.loop, err);
	leave_terminal(p);
	*ret = p->end;
	if (r == 0 && p->failure.code) {
		*err = p->failure;
		r = -(int)p->failure.code;
	}
	return r;
}

int kb_pump_keys(struct kb_keys *keys, const char *option, struct kb_err *err)
{
	const char *env = getenv("KBSUP_DETACH_KEYS");
	int r;

	if (option)
		return kb_keys_parse(keys, option, err);
	r = kb_keys_parse(keys, env && *env ? env : KB_KEYS_DEFAULT, err);
	return r < 0 ? kb_err_prefix(err, "KBSUP_DETACH_KEYS") : r;
}
