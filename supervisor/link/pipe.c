/* The transport of driver `local`: kbsup-guest is our child, at the other end of a socket pair. */
#include <stdlib.h>
#include <unistd.h>

#include "link_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/programs.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define GUEST_FD    3
#define GREETING_MS 20000

static int pipe_open(struct kb_link *link, int *ret_fd, struct kb_err *err)
{
	static const char *const argv[] = {"kbsup-guest", "--link-fd=3", NULL};
	KB_CLOSE int ours = -1;
	KB_CLOSE int theirs = -1;
	char path[PATH_MAX];
	int pair[2], r = kb_program_path("kbsup-guest", path, err);

	if (r == 0)
		r = kb_fd_socketpair(false, pair, err);
	if (r < 0)
		return r;
	ours = pair[0];
	theirs = pair[1];
	struct kb_spawn_fd fds[] = {{theirs, GUEST_FD}, {STDERR_FILENO, STDERR_FILENO}};
	struct kb_spawn spawn = {.path = path,
		.argv = argv,
		.env = (const char *const *)environ,
		.cwd = "/",
		.fds = fds,
		.n_fds = KB_ARRAY_LEN(fds),
		.flags = KB_SPAWN_SETSID};

	r = kb_spawn(&spawn, &link->guest_pid, err);
	if (r == 0)
		*ret_fd = kb_steal_fd(&ours);
	return r;
}

const struct kb_transport kb_transport_pipe = {
	.name = "pipe", .greeting_ms = GREETING_MS, .open = pipe_open};
