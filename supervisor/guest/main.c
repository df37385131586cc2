/* kbsup-guest: the machine side. Without a role it is the parent process on the link; with one it
 * is what the parent re-executes itself as. --serve and --attach: see front.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "supervisor/base/build.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/log.h"
#include "supervisor/base/programs.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/front.h"
#include "supervisor/guest/guest.h"
#include "supervisor/guest/runtime.h"
#include "supervisor/guest/session.h"

#define LINK_FD 3
#define NO_SEAT UINT64_MAX
enum { EXIT_USAGE_ = 2 };

struct arguments {
	const char *role, *state, *init, *runtime;
	uint64_t link_fd, cgroups, seat;
	const char *no_bpf, *port, *socket, *owner;
	bool serve, attach, leave;
};

static const struct {
	const char *name;
	size_t text, number; /* offset of where the value goes; 0: not this kind */
} options[] = {
	{"--role=", offsetof(struct arguments, role), 0},
	{"--state=", offsetof(struct arguments, state), 0},
	{"--init=", offsetof(struct arguments, init), 0},
	{"--runtime=", offsetof(struct arguments, runtime), 0},
	{"--link-fd=", 0, offsetof(struct arguments, link_fd)},
	{"--cgroups=", 0, offsetof(struct arguments, cgroups)},
	{"--seat=", 0, offsetof(struct arguments, seat)},
	{"--no-bpf=", offsetof(struct arguments, no_bpf), 0},
	{"--port=", offsetof(struct arguments, port), 0},
	{"--socket=", offsetof(struct arguments, socket), 0},
	{"--owner=", offsetof(struct arguments, owner), 0},
};

static const struct {
	const char *name;
	size_t flag;
} flags[] = {
	{"--serve", offsetof(struct arguments, serve)},
	{"--attach", offsetof(struct arguments, attach)},
	{"--leave", offsetof(struct arguments, leave)},
};

static bool take_option(const char *arg, struct arguments *args)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(flags); i++)
		if (strcmp(arg, flags[i].name) == 0)
			return *(bool *)((char *)args + flags[i].flag) = true;
	for (size_t i = 0; i < KB_ARRAY_LEN(options); i++) {
		size_t len = strlen(options[i].name);

		if (strncmp(arg, options[i].name, len) != 0)
			continue;
		if (options[i].number)
			return kb_parse_u64(
				arg + len, (uint64_t *)((char *)args + options[i].number));
		*(const char **)((char *)args + options[i].text) = arg + len;
		return true;
	}
	return false;
}

static int run_parent(const struct arguments *args)
{
	char init[PATH_MAX];
	KB_FREE char *state = NULL;
	struct kb_dirs dirs;
	struct kb_err err = {0};
	struct kb_guest_options o = {
		.link_fd = (int)args->link_fd, .init = args->init, .runtime = args->runtime};
	int r = kb_dirs_find(&dirs, &err);

	if (r == 0 && !o.init)
		r = kb_program_path("kbsup-init", init, &err);
	if (r < 0) {
		kb_log_error("%s", err.msg);
		return 1;
	}
	if (!o.init)
		o.init = init;
	state = args->state ? strdup(args->state) : kb_asprintf("%s/guest", dirs.runtime);
	o.state = state;
	return state ? kb_guest_main(&o) : 1;
}

/* Where the two find each other unless they are told. */
static int run_front(const struct arguments *args)
{
	struct kb_front_options o = {.port = args->port,
		.socket = args->socket,
		.state = args->state,
		.leaves = args->leave};
	KB_FREE char *socket = NULL;
	KB_FREE char *state = NULL;
	struct kb_dirs dirs;
	struct kb_err err = {0};
	int r = kb_dirs_find(&dirs, &err);

	if (r == 0)
		r = kb_dirs_make(dirs.runtime, &err);
	if (r < 0) {
		kb_log_error("%s", err.msg);
		return 1;
	}
	if (args->owner && !kb_name_valid(args->owner))
		return EXIT_USAGE_;
	if (!o.socket)
		o.socket = socket = kb_asprintf("%s/guest%s%s.sock", dirs.runtime,
			args->owner ? "-" : "", args->owner ? args->owner : "");
	if (!o.state && args->owner)
		o.state = state = kb_asprintf("%s/guest-%s", dirs.runtime, args->owner);
	if (!o.socket || (args->owner && !o.state))
		return 1;
	return args->serve ? kb_front_main(&o) : kb_front_attach(o.socket, o.state);
}

static int run_role(const struct arguments *args)
{
	struct kb_setup_options o = {.state = args->state,
		.init = args->init,
		.runtime = args->runtime,
		.cgroups = (unsigned)args->cgroups,
		.bpf = args->seat != NO_SEAT,
		.seat = (unsigned)args->seat,
		.no_bpf = args->no_bpf};

	if (!o.state || !o.init || !o.runtime)
		return EXIT_USAGE_;
	if (strcmp(args->role, "session") == 0)
		return kb_session_main(&o);
	if (strcmp(args->role, "probe") == 0)
		return kb_runtime_probe_main(&o);
	return EXIT_USAGE_;
}

int main(int argc, char **argv)
{
	struct arguments args = {.link_fd = LINK_FD, .seat = NO_SEAT};

	kb_log_init("kbsup-guest");
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--version") == 0) {
			printf("kbsup-guest %s\n", kb_build_id());
			return 0;
		}
		if (!take_option(argv[i], &args)) {
			fprintf(stderr,
				"kbsup-guest: unknown option %s\nit is started by kbsupd: "
				"[--link-fd=N] [--runtime=NAME] [--state=DIR] [--init=FILE]\n"
				"or, in a machine: --serve [--port=NAME] [--socket=FILE] "
				"[--leave], "
				"--attach [--socket=FILE | --owner=NAME]\n",
				argv[i]);
			return EXIT_USAGE_;
		}
	}
	if (args.serve || args.attach)
		return run_front(&args);
	return args.role ? run_role(&args) : run_parent(&args);
}
