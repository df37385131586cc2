/* Every row of the collector's table, called for real: what was asked for is what is recorded. All
 * of them are denied by a rule, so that nothing happens; the rule's errno must arrive. */
#include "tests/unit/kbtest.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "audit/collect/traps.h"
#include "live.h"

#define DENIED_ERRNO EOVERFLOW /* nothing in these calls returns it by itself */

/* Calls a C program cannot do without, and the ends of processes. */
static const char *const left_out[] = {
	"execve", "exit", "exit_group", "mmap", "mprotect", "sendmsg", "kill", "tgkill", "mremap"};

static bool is_left_out(const char *name)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(left_out); i++)
		if (strcmp(left_out[i], name) == 0)
			return true;
	return false;
}

struct
try {
	const struct kb_trap *row;
	int nr;
	long args[6];
};

struct plan {
	char *dir;
	int dirfd, filefd;
	char file[128], other[128];
	struct sockaddr_in address;
	struct msghdr message;
	struct try tries[256];
	size_t n;
	int fd_report; /* the child says here what it got */
};

static long pointer(const void *at)
{
	return (long)(intptr_t)at;
}

/* Arguments that name `file` (and `other`), by directory descriptor where the call has one. */
static void plan_paths(struct plan *p, struct try *t)
{
	const struct kb_trap *row = t->row;

	if (row->dirfd)
		t->args[row->dirfd - 1] = p->dirfd;
	if (row->dirfd2)
		t->args[row->dirfd2 - 1] = AT_FDCWD;
	t->args[row->path - 1] = pointer(row->dirfd ? "file" : p->file);
	if (row->path2)
		t->args[row->path2 - 1] = pointer(p->other);
	if (row->mode)
		t->args[row->mode - 1] = 0640;
	if (row->flags && !(row->traits & KB_TRAP_HOW))
		t->args[row->flags - 1] = 0;
}

static void plan_one(struct plan *p, const struct kb_trap *row)
{
	static const unsigned long how[3] = {O_RDONLY};
	struct try *t = &p->tries[p->n];

	t->row = row;
	t->nr = kb_syscall_number(kb_arch_native(), row->name);
	if (t->nr < 0 || is_left_out(row->name))
		return;
	p->n++;
	switch (row->shape) {
	case KB_SHAPE_PATH:
		plan_paths(p, t);
		if (row->traits & KB_TRAP_HOW) {
			t->args[2] = pointer(how);
			t->args[3] = sizeof(how);
		}
		break;
	case KB_SHAPE_EXEC:
		plan_paths(p, t);
		break;
	case KB_SHAPE_FD:
		t->args[row->dirfd - 1] = p->filefd;
		if (row->mode)
			t->args[row->mode - 1] = 0640;
		break;
	case KB_SHAPE_SOCKADDR:
		t->args[row->path - 1] = pointer(&p->address);
		t->args[row->argv - 1] = sizeof(p->address);
		break;
	case KB_SHAPE_MSGHDR:
		t->args[row->path - 1] = pointer(&p->message);
		break;
	case KB_SHAPE_PLAIN:
	case KB_SHAPE_EXIT:
		for (int i = 0; i < 6; i++)
			t->args[i] = 1000 + i;
		break;
	}
}

static char *policy_of(const struct plan *p)
{
	struct kb_buf text;
	struct kb_err err;

	kb_buf_init(&text, 1 << 20);
	assert_ok(kb_buf_puts(&text, "policy live version 1 { groups 2026-11\n" LIVE_FILES, &err));
	for (size_t i = 0; i < p->n; i++)
		assert_ok(kb_buf_printf(&text, &err, "syscall %s deny EOVERFLOW record full\n",
			p->tries[i].row->name));
	assert_ok(kb_buf_puts(&text,
		"group @io @memory @thread @process @signal @socket @exit allow\n"
		"default deny ENOSYS record summary }\n",
		&err));
	return kb_buf_steal_string(&text);
}

static int call_all(void *arg)
{
	struct plan *p = arg;

	for (size_t i = 0; i < p->n; i++) {
		const struct try *t = &p->tries[i];
		long r = syscall(t->nr, t->args[0], t->args[1], t->args[2], t->args[3], t->args[4],
			t->args[5]);

		if (r != -1 || errno != DENIED_ERRNO) {
			dprintf(2, "%s returned %ld, errno %d\n", t->row->name, r, errno);
			return 1;
		}
	}
	return 0;
}

static void expect_path(const struct plan *p, const struct try *t, const struct kb_record *r)
{
	if (t->row->shape == KB_SHAPE_EXEC || t->row->shape == KB_SHAPE_PATH ||
		t->row->shape == KB_SHAPE_FD) {
		if (!bytes_are(r->path, p->file))
			fail_msg("%s: path %.*s", t->row->name, (int)r->path.len, r->path.data);
		assert_int_equal(r->trust, KB_TRUST_RACY);
	}
	if (t->row->shape == KB_SHAPE_PATH && t->row->dirfd)
		assert_true(bytes_are(r->path_arg, "file"));
	if (t->row->path2 && !bytes_are(r->path2, p->other))
		fail_msg("%s: path2 %.*s", t->row->name, (int)r->path2.len, r->path2.data);
	if (t->row->mode)
		assert_true(r->event == KB_EVENT_OPEN || r->mode == 0640);
}

static void expect_rest(const struct try *t, const struct kb_record *r)
{
	if (t->row->shape == KB_SHAPE_SOCKADDR || t->row->shape == KB_SHAPE_MSGHDR) {
		if (r->family != AF_INET || r->port != 4711 || r->address.len != 4)
			fail_msg("%s: family %u port %u", t->row->name, r->family, r->port);
	}
	if (t->row->shape == KB_SHAPE_PLAIN)
		for (int i = 0; i < 6; i++)
			assert_int_equal(r->args[i], 1000 + i);
	if (t->row->signal)
		assert_int_equal(r->signal, 1000 + t->row->signal - 1);
}

static void test_every_row(void **state)
{
	KB_FREE struct plan *p = calloc(1, sizeof(*p));
	struct live live = {0};
	const struct kb_trap *rows;
	size_t n_rows;

	p->dir = *state;
	rows = kb_traps(&n_rows);
	snprintf(p->file, sizeof(p->file), "%s/file", p->dir);
	snprintf(p->other, sizeof(p->other), "%s/other", p->dir);
	p->dirfd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	p->filefd = open(p->file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	p->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(4711)};
	p->message = (struct msghdr){.msg_name = &p->address, .msg_namelen = sizeof(p->address)};
	for (size_t i = 0; i < n_rows && p->n < KB_ARRAY_LEN(p->tries); i++)
		plan_one(p, &rows[i]);
	assert_true(p->n > 60);

	KB_FREE char *policy = policy_of(p);

	assert_int_equal(live_run(&live, policy, call_all, p), 0);
	/* One record for each, in order, then the exit. */
	if (live.n_records != p->n + 1)
		live_dump(&live);
	assert_int_equal(live.n_records, p->n + 1);
	for (size_t i = 0; i < p->n; i++) {
		const struct kb_record *r = &live.records[i]->record;
		const struct try *t = &p->tries[i];

		if (r->syscall != t->nr || r->event != t->row->event)
			fail_msg("%s: syscall %d event %d", t->row->name, r->syscall, r->event);
		assert_int_equal(r->decision, KB_DECISION_DENIED);
		assert_int_equal(r->outcome, KB_OUTCOME_FAILED);
		assert_int_equal(r->errnum, DENIED_ERRNO);
		assert_true(r->rule != KB_RULE_NONE);
		expect_path(p, t, r);
		expect_rest(t, r);
	}
	live_finish(&live);
	close(p->dirfd);
	close(p->filefd);
}

/* Names are unique and every event of the table is one a record can have. */
static void test_table(void **state)
{
	size_t n;
	const struct kb_trap *rows = kb_traps(&n);

	for (size_t i = 0; i < n; i++) {
		assert_true(rows[i].event > KB_EVENT_NONE && rows[i].event < KB_EVENT_MAX_);
		assert_true(kb_syscall_number(kb_arch_parse("x86_64"), rows[i].name) >= 0);
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(rows[i].name, rows[k].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test_setup_teardown(test_every_row, tmpdir_setup, tmpdir_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
