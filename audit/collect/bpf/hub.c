/* Theory of operation.
 *
 * Loading the programs takes the kernel tens of milliseconds, and every copy of them would look at
 * every system call of the machine. So they are loaded once, by whoever lives long (the guest's
 * parent process: the hub), and sessions share them. A session has a *seat*: a number under which
 * its own ring buffer and its own table of calls hang in the programs' maps. Making a seat waits
 * for the kernel (a map is put into a map only when no program can be using what was there), so
 * seats are made ahead, by a process that waits for its session, and are used again. Starting the
 * session is then one entry in a hash: pid namespace → seat.
 *
 * The programs are attached only while somebody needs them: an attached program costs every system
 * call of the machine a few nanoseconds, wanted or not.
 *
 * Hooks (hooks.bpf.h) are tried with the rest; where the kernel does not take them, the lane does
 * without.
 *
 * Only the session itself reads its buffer. If its process dies, the hub strikes out its pid
 * namespace (kb_bpf_hub_release); ring and table stay until the seat is given again.
 */
#include "hub.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "audit/collect/traps.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

#define LINKS_MAX   24
#define HOOKED_CALL "security_path_unlink" /* one of them */
#define PROBE_CALL  "getppid"		   /* what the probe makes and looks for */

/* bpf_object.c, made from trace.bpf.o */
extern const unsigned char kb_bpf_object[];
extern const unsigned kb_bpf_object_len;

_Static_assert(KB_BPF_CALLS == KB_CALLS_MAX, "lane notify has the numbers that lane bpf has not");

struct kb_bpf_hub {
	struct bpf_object *object;
	struct bpf_link *links[LINKS_MAX]; /* the hooks', then the tracepoints' */
	size_t n_hooks, n_links;	   /* n_links: all of them */
	int maps[KB_BPF_HUB_FDS];	   /* the object's */
};

static const char *const map_names[KB_BPF_HUB_FDS] = {
	[KB_BPF_SESSIONS] = "sessions",
	[KB_BPF_WANTED] = "wanted",
	[KB_BPF_RINGS] = "rings",
	[KB_BPF_TABLES] = "tables",
	[KB_BPF_LOSSES] = "losses",
};

/* ---- Loading ----------------------------------------------------------------------------------
 */

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return 0;
}

static bool is_hook(const struct bpf_program *program)
{
	return strncmp(bpf_program__name(program), "hook_", 5) == 0;
}

/* Room for each CPU; and whether there are hooks, for the programs to know. */
static int configure(struct kb_bpf_hub *hub, bool hooks, struct kb_err *err)
{
	static const char *const rooms[] = {"scratches", "hook_scratches"};
	struct bpf_map *has_hooks = bpf_object__find_map_by_name(hub->object, ".rodata");
	int cpus = libbpf_num_possible_cpus();
	const char value = hooks;
	struct bpf_program *program;

	for (size_t i = 0; i < KB_ARRAY_LEN(rooms); i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(hub->object, rooms[i]);

		if (!map || cpus < 1 || bpf_map__set_max_entries(map, (unsigned)cpus) < 0)
			return kb_err_set(err, KB_ERR_FAILED, "lane bpf cannot be configured");
	}
	if (!has_hooks || bpf_map__set_initial_value(has_hooks, &value, sizeof(value)) < 0)
		return kb_err_set(err, KB_ERR_FAILED, "lane bpf cannot be configured");
	bpf_object__for_each_program(program, hub->object) if (is_hook(program))
		bpf_program__set_autoload(program, hooks);
	return 0;
}

static int try_load(struct kb_bpf_hub *hub, bool hooks, struct kb_err *err)
{
	int r;

	hub->object = bpf_object__open_mem(kb_bpf_object, kb_bpf_object_len, NULL);
	if (!hub->object)
		return kb_err_sys(err, errno, "lane bpf cannot be opened");
	r = configure(hub, hooks, err);
	if (r < 0)
		return r;
	r = bpf_object__load(hub->object);
	if (r == 0)
		return 0;
	kb_err_sys(err, -r, "the kernel does not take lane bpf");
	return kb_err_hint(err, "lane bpf needs CAP_BPF and CAP_PERFMON, and a kernel of "
				"5.17 or later with BTF; lane notify needs neither");
}

static void unload(struct kb_bpf_hub *hub)
{
	kb_bpf_hub_detach(hub);
	while (hub->n_links)
		bpf_link__destroy(hub->links[--hub->n_links]);
	hub->n_hooks = 0;
	if (hub->object)
		bpf_object__close(hub->object);
	hub->object = NULL;
}

static int attach(struct kb_bpf_hub *hub, bool hooks, struct kb_err *err)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, hub->object)
	{
		struct bpf_link *link;

		if (is_hook(program) != hooks)
			continue;
		link = hub->n_links < LINKS_MAX ? bpf_program__attach(program) : NULL;
		if (!link)
			return kb_err_sys(err, errno, "lane bpf cannot be attached");
		hub->links[hub->n_links++] = link;
	}
	return 0;
}

/* Whether the kernel takes a hook at all: trying the smallest costs less than trying everything. */
static bool takes_hooks(void)
{
	static const struct bpf_insn nothing[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K}, /* r0 = 0 */
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = BPF_TRACE_FENTRY);
	struct btf *types = btf__load_vmlinux_btf();
	int id = types ? btf__find_by_name_kind(types, HOOKED_CALL, BTF_KIND_FUNC) : -1;
	KB_CLOSE int fd = -1;

	btf__free(types);
	if (id <= 0)
		return false;
	options.attach_btf_id = (uint32_t)id;
	fd = bpf_prog_load(
		BPF_PROG_TYPE_TRACING, NULL, "GPL", nothing, KB_ARRAY_LEN(nothing), &options);
	return fd >= 0;
}

/* With hooks where the kernel has them all. They stay in place: putting them there means changing
 * the kernel's text, and only calls that change names come by. */
static int load(struct kb_bpf_hub *hub, struct kb_err *err)
{
	bool hooks;
	int r;

	libbpf_set_print(quiet);
	hooks = takes_hooks();
	r = try_load(hub, hooks, err);
	if (r == 0 && hooks)
		r = attach(hub, true, err);
	if (r < 0 && hooks) {
		unload(hub);
		r = try_load(hub, false, err);
	}
	if (r < 0)
		return r;
	hub->n_hooks = hub->n_links;
	for (size_t i = 0; i < KB_BPF_HUB_FDS; i++) {
		hub->maps[i] = bpf_object__find_map_fd_by_name(hub->object, map_names[i]);
		if (hub->maps[i] < 0)
			return kb_err_set(err, KB_ERR_FAILED, "lane bpf has no %s", map_names[i]);
	}
	return 0;
}

int kb_bpf_hub_attach(struct kb_bpf_hub *hub, struct kb_err *err)
{
	int r;

	if (hub->n_links > hub->n_hooks)
		return 0;
	r = attach(hub, false, err);
	if (r < 0)
		kb_bpf_hub_detach(hub);
	return r;
}

void kb_bpf_hub_detach(struct kb_bpf_hub *hub)
{
	while (hub->n_links > hub->n_hooks)
		bpf_link__destroy(hub->links[--hub->n_links]);
}

bool kb_bpf_hub_hooked(const struct kb_bpf_hub *hub)
{
	return hub->n_hooks > 0;
}

int kb_bpf_hub_create(struct kb_bpf_hub **ret, struct kb_err *err)
{
	struct kb_bpf_hub *hub = calloc(1, sizeof(*hub));
	int r;

	if (!hub)
		return kb_err_nomem(err);
	r = load(hub, err);
	if (r < 0) {
		kb_bpf_hub_destroy(hub);
		return r;
	}
	*ret = hub;
	return 0;
}

void kb_bpf_hub_destroy(struct kb_bpf_hub *hub)
{
	if (!hub)
		return;
	unload(hub);
	free(hub);
}

void kb_bpf_hub_fds(const struct kb_bpf_hub *hub, int ret[KB_BPF_HUB_FDS])
{
	memcpy(ret, hub->maps, sizeof(hub->maps));
}

void kb_bpf_hub_release(struct kb_bpf_hub *hub, unsigned seat)
{
	int fd = hub->maps[KB_BPF_SESSIONS];
	struct kb_bpf_session session;
	uint32_t key, next;
	int more = bpf_map_get_next_key(fd, NULL, &next);

	while (more == 0) {
		key = next;
		more = bpf_map_get_next_key(fd, &key, &next);
		if (bpf_map_lookup_elem(fd, &key, &session) == 0 && session.seat == seat)
			bpf_map_delete_elem(fd, &key);
	}
}

/* ---- Seats ------------------------------------------------------------------------------------
 */

static int hang_in(int outer, uint32_t number, int inner, struct kb_err *err)
{
	return bpf_map_update_elem(outer, &number, &inner, 0) < 0
		       ? kb_err_sys(err, errno, "lane bpf: a session's place in the maps")
		       : 0;
}

/* The map that hangs there already; -1 if there is none. */
static int hanging_in(int outer, uint32_t number)
{
	uint32_t id;

	return bpf_map_lookup_elem(outer, &number, &id) < 0 ? -1 : bpf_map_get_fd_by_id(id);
}

static int pass_event(void *arg, void *data, size_t size)
{
	const struct kb_bpf_seat *seat = arg;

	return seat->event ? seat->event(seat->arg, data, size) : 0;
}

static int hang_new(struct kb_bpf_seat *seat, struct kb_err *err)
{
	int r;

	kb_close(&seat->ring_fd);
	kb_close(&seat->table_fd);
	seat->ring_fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "kbsup_ring", 0, 0, KB_BPF_RING, NULL);
	seat->table_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "kbsup_calls", sizeof(uint32_t),
		sizeof(struct kb_bpf_call), KB_BPF_CALLS, NULL);
	if (seat->ring_fd < 0 || seat->table_fd < 0)
		return kb_err_sys(err, errno, "lane bpf: a session's buffer");
	r = hang_in(seat->maps[KB_BPF_RINGS], seat->number, seat->ring_fd, err);
	if (r == 0)
		r = hang_in(seat->maps[KB_BPF_TABLES], seat->number, seat->table_fd, err);
	return r;
}

static int make_seat(struct kb_bpf_seat *seat, struct kb_err *err)
{
	const struct kb_bpf_lost none = {0};
	int r;

	seat->ring_fd = hanging_in(seat->maps[KB_BPF_RINGS], seat->number);
	seat->table_fd = hanging_in(seat->maps[KB_BPF_TABLES], seat->number);
	r = seat->ring_fd >= 0 && seat->table_fd >= 0 ? 0 : hang_new(seat, err);
	if (r < 0)
		return r;
	seat->ring = ring_buffer__new(seat->ring_fd, pass_event, seat, NULL);
	if (!seat->ring)
		return kb_err_sys(err, errno, "lane bpf has no ring buffer");
	/* Who had the seat before may have left something. His table is overwritten. */
	ring_buffer__consume(seat->ring);
	if (bpf_map_update_elem(seat->maps[KB_BPF_LOSSES], &seat->number, &none, 0) < 0)
		r = kb_err_sys(err, errno, "lane bpf: a session's counters");
	return r;
}

int kb_bpf_seat_create(const int hub[KB_BPF_HUB_FDS], unsigned number, struct kb_bpf_seat **ret,
	struct kb_err *err)
{
	struct kb_bpf_seat *seat = calloc(1, sizeof(*seat));
	int r = 0;

	if (!seat)
		return kb_err_nomem(err);
	*seat = (struct kb_bpf_seat){.number = number, .ring_fd = -1, .table_fd = -1};
	for (size_t i = 0; i < KB_BPF_HUB_FDS; i++)
		seat->maps[i] = -1;
	for (size_t i = 0; i < KB_BPF_HUB_FDS && r == 0; i++) {
		seat->maps[i] = fcntl(hub[i], F_DUPFD_CLOEXEC, 3);
		if (seat->maps[i] < 0)
			r = kb_err_sys(err, errno, "lane bpf's maps");
	}
	if (r == 0)
		r = make_seat(seat, err);
	if (r < 0) {
		kb_bpf_seat_destroy(seat);
		return r;
	}
	*ret = seat;
	return 0;
}

void kb_bpf_seat_destroy(struct kb_bpf_seat *seat)
{
	if (!seat)
		return;
	kb_bpf_seat_leave(seat);
	if (seat->ring)
		ring_buffer__free(seat->ring);
	for (size_t i = 0; i < KB_BPF_HUB_FDS; i++)
		kb_close(&seat->maps[i]);
	kb_close(&seat->ring_fd);
	kb_close(&seat->table_fd);
	free(seat);
}

/* What another session wants stays wanted; two at once only ever add. */
static int add_wanted(const struct kb_bpf_seat *seat, const struct kb_bpf_call calls[KB_BPF_CALLS])
{
	uint32_t had[KB_BPF_CALLS], keys[KB_BPF_CALLS], next, n = KB_BPF_CALLS;
	int fd = seat->maps[KB_BPF_WANTED];

	/* ENOENT: that was all of them. */
	if (bpf_map_lookup_batch(fd, NULL, &next, keys, had, &n, NULL) < 0 && errno != ENOENT)
		return -1;
	for (uint32_t i = 0; i < n; i++) {
		const struct kb_bpf_call *call = &calls[keys[i]];
		uint32_t want = had[i] | (call->report ? KB_BPF_WANT_EXIT : 0) |
				(call->exec ? KB_BPF_WANT_ENTER : 0);

		if (want != had[i] && bpf_map_update_elem(fd, &keys[i], &want, 0) < 0)
			return -1;
	}
	return 0;
}

int kb_bpf_seat_want(const struct kb_bpf_seat *seat, const struct kb_bpf_call calls[KB_BPF_CALLS],
	struct kb_err *err)
{
	uint32_t keys[KB_BPF_CALLS], n = KB_BPF_CALLS;

	for (uint32_t nr = 0; nr < KB_BPF_CALLS; nr++)
		keys[nr] = nr;
	if (bpf_map_update_batch(seat->table_fd, keys, calls, &n, NULL) < 0 ||
		add_wanted(seat, calls) < 0)
		return kb_err_sys(err, errno, "lane bpf: the table of calls");
	return 0;
}

/* How many seccomp filters a process has; -1 when the kernel does not say (before 5.9). */
static int count_filters(pid_t pid)
{
	static const char field[] = "\nSeccomp_filters:";
	char path[64], text[4096];
	const char *at;
	uint64_t value;
	ssize_t n;
	KB_CLOSE int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	at = strstr(text, field);
	if (!at)
		return -1;
	value = strtoull(at + sizeof(field) - 1, NULL, 10);
	return value < INT32_MAX ? (int)value : -1;
}

int kb_bpf_seat_take(struct kb_bpf_seat *seat, pid_t init_pid, struct kb_err *err)
{
	struct kb_bpf_session session = {
		.seat = seat->number, .filters = init_pid ? count_filters(init_pid) : -1};
	char path[64] = "/proc/self/ns/pid";
	struct stat st;

	if (init_pid)
		snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)init_pid);
	if (stat(path, &st) < 0)
		return kb_err_sys(err, errno, "the session's pid namespace");
	session.pid_ns = (uint32_t)st.st_ino;
	if (bpf_map_update_elem(seat->maps[KB_BPF_SESSIONS], &session.pid_ns, &session, 0) < 0)
		return kb_err_sys(err, errno, "lane bpf: the session's processes");
	seat->pid_ns = session.pid_ns;
	return 0;
}

void kb_bpf_seat_leave(struct kb_bpf_seat *seat)
{
	if (seat->pid_ns)
		bpf_map_delete_elem(seat->maps[KB_BPF_SESSIONS], &seat->pid_ns);
	seat->pid_ns = 0;
}

int kb_bpf_seat_lost(const struct kb_bpf_seat *seat, struct kb_bpf_lost *ret)
{
	return bpf_map_lookup_elem(seat->maps[KB_BPF_LOSSES], &seat->number, ret);
}

/* ---- The probe --------------------------------------------------------------------------------
 */

struct sought {
	int nr;
	bool seen;
};

static int on_probe_event(void *arg, const void *data, size_t size)
{
	const struct kb_bpf_event *event = data;
	struct sought *sought = arg;

	if (size >= sizeof(*event))
		sought->seen |= event->kind == KB_BPF_CALL && event->nr == sought->nr;
	return 0;
}

static int look_for(struct kb_bpf_hub *hub, struct kb_bpf_seat *seat, struct kb_err *err)
{
	struct sought sought = {.nr = kb_syscall_number(kb_arch_native(), PROBE_CALL)};
	struct kb_bpf_call calls[KB_BPF_CALLS] = {0};
	int r;

	calls[sought.nr].report = KB_BPF_REPORT_ALWAYS;
	r = kb_bpf_seat_want(seat, calls, err);
	if (r == 0)
		r = kb_bpf_seat_take(seat, 0, err);
	if (r == 0)
		r = kb_bpf_hub_attach(hub, err);
	if (r < 0)
		return r;
	seat->event = on_probe_event;
	seat->arg = &sought;
	syscall(sought.nr);
	ring_buffer__consume(seat->ring);
	return sought.seen ? 0 : kb_err_set(err, KB_ERR_FAILED, "lane bpf loads but sees nothing");
}

int kb_bpf_hub_probe(struct kb_bpf_hub *hub, struct kb_err *err)
{
	const uint32_t nr = (uint32_t)kb_syscall_number(kb_arch_native(), PROBE_CALL), none = 0;
	struct kb_bpf_seat *seat = NULL;
	int r = kb_bpf_seat_create(hub->maps, KB_BPF_SEATS - 1, &seat, err);

	if (r == 0)
		r = look_for(hub, seat, err);
	kb_bpf_seat_destroy(seat);
	(void)bpf_map_update_elem(hub->maps[KB_BPF_WANTED], &nr, &none, 0);
	kb_bpf_hub_detach(hub);
	return r;
}

int kb_bpf_probe(struct kb_err *err)
{
	struct kb_bpf_hub *hub = NULL;
	int r = kb_bpf_hub_create(&hub, err);

	if (r == 0)
		r = kb_bpf_hub_probe(hub, err);
	kb_bpf_hub_destroy(hub);
	return r;
}
