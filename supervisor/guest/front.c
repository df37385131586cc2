/* One stream at a time, the latest that somebody dialled: its local end is the link of a guest
 * process started for it. Any number of carriers may be knocking; the one whose SYN names the
 * stream gets to carry it.
 *
 *	port ──┐                      ┌ carrier ─▶ stream ══ socket pair ══ kbsup-guest --link-fd=3
 *	socket ┴─▶ knocks ── SYN ─────┘
 */
#include "supervisor/guest/front.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/link.pb-c.h"
#include "supervisor/base/build.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/resume.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/base/vport.h"

#define LINK_FD	      3
#define KNOCKS_MAX    16
#define KNOCK_MS      30000   /* for a SYN to come over a connection of the socket */
#define PORT_LOOK_MS  500     /* SIGIO says when the host comes; this is only a net */
#define LEAVE_MS      60000   /* without a stream, where nobody asked us to stay */
#define AHEAD_MS      500     /* without a stream: the next guest is started ahead */
#define PATIENCE_MAX  3600000 /* whatever the dialler says */
#define PATIENCE_MORE 5000    /* who answers waits a little longer than who dials */

struct front;

/* A carrier whose dialler has not said which stream it wants. */
struct knock {
	TAILQ_ENTRY(knock) entry;
	struct front *front;
	struct kb_carrier *carrier;
	struct kb_source *limit; /* NULL: the port, which stays */
};

struct front {
	const struct kb_front_options *options;
	struct kb_loop *loop;
	struct kb_resume *stream;			 /* NULL: none */
	uint8_t link[KB_RESUME_ID], nonce[KB_RESUME_ID]; /* its name, and its carrier's try */
	int64_t patience_ms;
	TAILQ_HEAD(, knock) knocks;
	unsigned n_knocks;
	int listener, lock;
	pid_t ahead_pid;
	int ahead;	 /* the link of a guest that was started ahead; -1: none */
	int port;	 /* opened, without a host; -1: carried, or not there */
	bool port_taken; /* a carrier has it */
	bool on_port;	 /* … the stream's, at the latest */
	struct kb_source *accept, *io_signal, *child_signal, *term_signal;
	struct kb_source *look, *patience, *idle;
	bool ends;
};

static void knock_destroy(struct knock *k)
{
	TAILQ_REMOVE(&k->front->knocks, k, entry);
	k->front->n_knocks--;
	kb_carrier_destroy(k->carrier);
	kb_source_destroy(k->limit);
	free(k);
}

/* The port's carrier ended: its file is closed, and looked for again. */
static void look_for_port(struct front *f)
{
	f->port_taken = false;
	if (f->options->port)
		(void)kb_source_arm(f->look, 0, NULL);
}

/* The stream's carrier ended, if it was the port's. */
static void lose_port(struct front *f)
{
	if (f->on_port)
		look_for_port(f);
	f->on_port = false;
}

static void drop_stream(struct front *f)
{
	lose_port(f);
	kb_resume_destroy(KB_STEAL(f->stream));
	kb_source_disarm(f->patience);
	(void)kb_source_arm(f->idle, f->options->leaves ? LEAVE_MS : AHEAD_MS, NULL);
}

/* ---- The guest proper ------------------------------------------------------------------------ */

static int start_guest(struct front *f, int *ret_link, pid_t *ret_pid, struct kb_err *err)
{
	KB_CLOSE int near = -1;
	KB_CLOSE int far = -1;
	int pair[2], r = kb_fd_socketpair(false, pair, err);

	KB_FREE char *state =
		f->options->state ? kb_asprintf("--state=%s", f->options->state) : NULL;
	const char *const argv[] = {"kbsup-guest", "--link-fd=3", state, NULL};
	struct kb_spawn_fd fds[] = {{-1, LINK_FD}, {STDERR_FILENO, STDERR_FILENO}};
	struct kb_spawn spawn = {.path = "/proc/self/exe",
		.argv = argv,
		.env = (const char *const *)environ,
		.cwd = "/",
		.fds = fds,
		.n_fds = KB_ARRAY_LEN(fds),
		.flags = KB_SPAWN_SETSID};

	if (r < 0)
		return r;
	near = pair[0];
	fds[0].from = far = pair[1];
	r = kb_spawn(&spawn, ret_pid, err);
	if (r == 0)
		*ret_link = kb_steal_fd(&near);
	return r;
}

/* It takes a while until it knows what works here; nobody should have to wait for that. A machine
 * that is forked has one with it. */
static void start_ahead(struct front *f)
{
	struct kb_err err;

	if (f->ahead < 0 && start_guest(f, &f->ahead, &f->ahead_pid, &err) < 0)
		kb_log_warn("%s", err.msg);
}

static void on_child(int signo, void *arg)
{
	struct front *f = arg;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		if (pid == f->ahead_pid && f->ahead >= 0) {
			kb_close(&f->ahead);
			(void)kb_source_arm(f->idle, AHEAD_MS, NULL);
		}
}

/* ---- The stream ------------------------------------------------------------------------------ */

static void take_knock(struct front *f, struct kb_carrier *carrier, bool stays);
static void on_syn(
	struct front *f, struct kb_carrier *carrier, bool stays, const struct kb_packet *packet);

static void on_stranded(struct kb_resume *stream, const struct kb_err *why, void *arg)
{
	struct front *f = arg;

	kb_log_info("no carrier any more: %s", why->msg);
	lose_port(f);
	(void)kb_source_arm(f->patience, f->patience_ms, NULL);
}

/* Somebody dials again over the same carrier: as a serial port may have it, where the other end
 * cannot be seen to go. */
static void on_handshake(struct kb_resume *stream, const struct kb_packet *packet, void *arg)
{
	struct front *f = arg;
	struct kb_carrier *carrier = kb_resume_release(stream);
	bool on_port = f->on_port;

	if (carrier) {
		f->on_port = false;
		on_syn(f, carrier, on_port, packet);
	}
}

static void on_over(struct kb_resume *stream, void *arg)
{
	struct front *f = arg;
	struct kb_carrier *carrier = kb_resume_release(stream);
	bool on_port = f->on_port;

	/* Without one: it ended with the stream's last bytes. */
	if (carrier)
		f->on_port = false;
	drop_stream(f);
	if (carrier)
		take_knock(f, carrier, on_port);
}

static const struct kb_resume_ops stream_ops = {on_stranded, on_handshake, on_over};

static void on_patience(void *arg)
{
	struct front *f = arg;

	kb_log_warn("nobody came back in time: the sessions end");
	drop_stream(f);
}

static int begin_stream(struct front *f, const Kb__LinkSyn *syn, struct kb_err *err)
{
	KB_CLOSE int link = -1;
	pid_t pid;
	int r = 0;

	drop_stream(f);
	kb_source_disarm(f->idle);
	link = kb_steal_fd(&f->ahead);
	if (link < 0)
		r = start_guest(f, &link, &pid, err);
	if (r == 0)
		r = kb_resume_create(f->loop, kb_steal_fd(&link), &stream_ops, f, &f->stream, err);
	if (r < 0)
		return r;
	memcpy(f->link, syn->link.data, sizeof(f->link));
	return 0;
}

/* ---- Shaking hands --------------------------------------------------------------------------- */

static bool answer(struct front *f, struct kb_carrier *carrier, const Kb__LinkSyn *syn,
	enum kb_resume_verdict verdict)
{
	Kb__LinkSynAck ack = KB__LINK_SYN_ACK__INIT;
	struct kb_packet packet = {.kind = KB_RESUME_SYNACK};
	uint8_t bytes[512];

	ack.nonce = syn->nonce;
	ack.verdict = verdict;
	ack.build = (char *)kb_build_id();
	if (verdict == KB_RESUME_GOES_ON)
		packet.offset = kb_resume_handed(f->stream);
	if (kb__link_syn_ack__get_packed_size(&ack) > sizeof(bytes))
		return false;
	packet.data = bytes;
	packet.len = kb__link_syn_ack__pack(&ack, bytes);
	return kb_carrier_send(carrier, &packet);
}

static enum kb_resume_verdict judge(struct front *f, const Kb__LinkSyn *syn)
{
	struct kb_err err;

	if (syn->protocol != KB_RESUME_PROTOCOL)
		return KB_RESUME_OTHER;
	if (f->stream && memcmp(f->link, syn->link.data, KB_RESUME_ID) == 0)
		return KB_RESUME_GOES_ON;
	if (syn->resume)
		return KB_RESUME_UNKNOWN;
	if (begin_stream(f, syn, &err) == 0)
		return KB_RESUME_GOES_ON;
	kb_log_error("%s", err.msg);
	return KB_RESUME_FAILED;
}

static void carry(struct front *f, struct kb_carrier *carrier, const Kb__LinkSyn *syn, uint64_t has,
	bool on_port)
{
	struct kb_err err;

	if (!on_port)
		lose_port(f);
	f->on_port = on_port;
	f->patience_ms = KB_MIN(syn->patience_ms, PATIENCE_MAX) + PATIENCE_MORE;
	memcpy(f->nonce, syn->nonce.data, sizeof(f->nonce));
	kb_source_disarm(f->patience);
	if (kb_resume_carry(f->stream, carrier, has, &err) < 0) {
		kb_log_error("%s", err.msg);
		drop_stream(f);
	}
}

/* The SYN was sent more than once, and what it says of the stream is old. */
static bool is_repeated(const struct front *f, const Kb__LinkSyn *syn)
{
	return f->stream && memcmp(f->link, syn->link.data, KB_RESUME_ID) == 0 &&
	       memcmp(f->nonce, syn->nonce.data, KB_RESUME_ID) == 0;
}

/* Takes carrier. stays: it is the port's. */
static void on_syn(
	struct front *f, struct kb_carrier *carrier, bool stays, const struct kb_packet *packet)
{
	Kb__LinkSyn *syn = packet->kind == KB_RESUME_SYN
				   ? kb__link_syn__unpack(NULL, packet->len, packet->data)
				   : NULL;
	enum kb_resume_verdict verdict;
	uint64_t has = packet->offset;

	if (!syn || syn->link.len != KB_RESUME_ID || syn->nonce.len != KB_RESUME_ID) {
		take_knock(f, carrier, stays);
	} else {
		if (is_repeated(f, syn))
			has = KB_MAX(has, kb_resume_peer_has(f->stream));
		verdict = judge(f, syn);
		if (answer(f, carrier, syn, verdict) && verdict == KB_RESUME_GOES_ON)
			carry(f, carrier, syn, has, stays);
		else
			take_knock(f, carrier, stays);
	}
	if (syn)
		kb__link_syn__free_unpacked(syn, NULL);
}

/* ---- Knocks ---------------------------------------------------------------------------------- */

static void on_knock_packet(struct kb_carrier *carrier, const struct kb_packet *packet, void *arg)
{
	struct knock *k = arg;
	struct front *f = k->front;
	bool stays = k->limit == NULL;

	if (packet->kind != KB_RESUME_SYN)
		return; /* of an earlier stream */
	k->carrier = NULL;
	knock_destroy(k);
	on_syn(f, carrier, stays, packet);
}

static void on_knock_room(struct kb_carrier *carrier, void *arg)
{
}

static void on_knock_ended(struct kb_carrier *carrier, const struct kb_err *why, void *arg)
{
	struct knock *k = arg;
	struct front *f = k->front;
	bool was_port = k->limit == NULL;

	knock_destroy(k);
	if (was_port)
		look_for_port(f);
}

static const struct kb_carrier_ops knock_ops = {on_knock_packet, on_knock_room, on_knock_ended};

static void on_knock_limit(void *arg)
{
	knock_destroy(arg);
}

/* Takes carrier. */
static void take_knock(struct front *f, struct kb_carrier *carrier, bool stays)
{
	struct knock *k = calloc(1, sizeof(*k));

	if (!k) {
		kb_carrier_destroy(carrier);
		return;
	}
	*k = (struct knock){.front = f, .carrier = carrier};
	TAILQ_INSERT_TAIL(&f->knocks, k, entry);
	f->n_knocks++;
	kb_carrier_assign(carrier, &knock_ops, k);
	if (!stays && (kb_loop_timer(f->loop, on_knock_limit, k, &k->limit, NULL) < 0 ||
			      kb_source_arm(k->limit, KNOCK_MS, NULL) < 0))
		knock_destroy(k);
}

/* Takes fd. */
static void open_knock(struct front *f, int fd, bool stays)
{
	struct kb_carrier *carrier;
	struct kb_err err;

	if (kb_carrier_create(f->loop, fd, &knock_ops, NULL, &carrier, &err) < 0)
		kb_log_error("%s", err.msg);
	else
		take_knock(f, carrier, stays);
}

static void on_accept(int listener, unsigned events, void *arg)
{
	struct front *f = arg;
	int fd = kb_fd_accept(listener);

	if (fd >= 0 && f->n_knocks < KNOCKS_MAX)
		open_knock(f, fd, false);
	else
		kb_close(&fd);
}

/* The port is a carrier only while the host's end is open: else it would be read for ever. */
static void on_look(void *arg)
{
	struct front *f = arg;

	if (f->port_taken)
		return;
	if (f->port < 0) {
		f->port = kb_vport_open(f->options->port, O_NONBLOCK);
		if (f->port >= 0) {
			(void)fcntl(f->port, F_SETOWN, getpid());
			(void)fcntl(f->port, F_SETFL, O_NONBLOCK | O_ASYNC);
		}
	}
	if (f->port >= 0 && kb_vport_is_connected(f->port)) {
		f->port_taken = true;
		open_knock(f, kb_steal_fd(&f->port), true);
	} else {
		(void)kb_source_arm(f->look, PORT_LOOK_MS, NULL);
	}
}

static void on_io_signal(int signo, void *arg)
{
	struct front *f = arg;

	if (!f->port_taken)
		(void)kb_source_arm(f->look, 0, NULL);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void on_term(int signo, void *arg)
{
	struct front *f = arg;

	f->ends = true;
	kb_loop_stop(f->loop);
}

static void on_idle(void *arg)
{
	struct front *f = arg;

	if (f->stream)
		return;
	if (f->options->leaves)
		on_term(0, f);
	else
		start_ahead(f);
}

/* Whoever answers on the socket holds it as long as it lives. */
static int take_lock(struct front *f, const char *path, struct kb_err *err)
{
	KB_FREE char *lock = kb_asprintf("%s.lock", path);

	f->lock = lock ? open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	if (f->lock < 0)
		return kb_err_sys(err, lock ? errno : ENOMEM, "%s cannot be locked", path);
	if (flock(f->lock, LOCK_EX | LOCK_NB) < 0)
		return kb_err_set(err, KB_ERR_EXISTS, "somebody answers on %s already", path);
	return 0;
}

static int listen_on(struct front *f, const char *path, struct kb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	KB_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask;
	int r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return kb_err_set(err, KB_ERR_LIMIT, "%s is too long for a socket", path);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	r = take_lock(f, path, err);
	if (r < 0)
		return r;
	unlink(path); /* a dead one's */
	mask = umask(0177);
	r = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(mask);
	if (r < 0 || listen(fd, KNOCKS_MAX) < 0)
		return kb_err_sys(err, errno, "%s cannot be listened on", path);
	f->listener = kb_steal_fd(&fd);
	return kb_loop_io(f->loop, f->listener, KB_IO_READ, on_accept, f, &f->accept, err);
}

static int set_up(struct front *f, struct kb_err *err)
{
	int r = kb_loop_create(&f->loop, err);

	if (r == 0)
		r = kb_loop_timer(f->loop, on_look, f, &f->look, err);
	if (r == 0)
		r = kb_loop_timer(f->loop, on_patience, f, &f->patience, err);
	if (r == 0)
		r = kb_loop_timer(f->loop, on_idle, f, &f->idle, err);
	if (r == 0)
		r = kb_loop_signal(f->loop, SIGIO, on_io_signal, f, &f->io_signal, err);
	if (r == 0)
		r = kb_loop_signal(f->loop, SIGCHLD, on_child, f, &f->child_signal, err);
	if (r == 0)
		r = kb_loop_signal(f->loop, SIGTERM, on_term, f, &f->term_signal, err);
	if (r == 0 && f->options->socket)
		r = listen_on(f, f->options->socket, err);
	if (r == 0 && f->options->port)
		r = kb_source_arm(f->look, 0, err);
	if (r == 0)
		r = kb_source_arm(f->idle, f->options->leaves ? LEAVE_MS : 0, err);
	return r;
}

static void finish(struct front *f)
{
	kb_resume_destroy(f->stream);
	while (!TAILQ_EMPTY(&f->knocks))
		knock_destroy(TAILQ_FIRST(&f->knocks));
	kb_source_destroy(f->io_signal);
	kb_source_destroy(f->child_signal);
	kb_source_destroy(f->term_signal);
	kb_source_destroy(f->look);
	kb_source_destroy(f->patience);
	kb_source_destroy(f->idle);
	kb_close(&f->listener);
	kb_close(&f->ahead);
	kb_close(&f->port);
	if (f->accept)
		unlink(f->options->socket);
	kb_source_destroy(f->accept);
	kb_close(&f->lock);
	kb_loop_destroy(f->loop);
}

int kb_front_main(const struct kb_front_options *options)
{
	struct front f = {.options = options, .listener = -1, .lock = -1, .ahead = -1, .port = -1};
	struct kb_err err;
	int r;

	signal(SIGPIPE, SIG_IGN);
	TAILQ_INIT(&f.knocks);
	r = set_up(&f, &err);
	while (r == 0 && !f.ends)
		r = kb_loop_run(f.loop, &err);
	if (r < 0)
		kb_log_error("%s", err.msg);
	finish(&f);
	return r < 0 ? 1 : 0;
}
