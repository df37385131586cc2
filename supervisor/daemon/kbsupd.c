/* kbsupd: options, and which role this process has. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "main.h"
#include "own_env.h"
#include "roles.h"
#include "supervisor/base/build.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"
#include "supervisor/broker/broker.h"
#include "supervisor/link/link.h"

struct options {
	bool foreground, daemon, help, version;
	uint64_t ready_fd;
	const char *role, *store;
	struct kb_link_options link;
};

static const char usage[] =
	"usage: kbsupd [--foreground]\n"
	"\n"
	"The supervisor of kbsup's sessions, one per user. `kbsup run` starts it when needed;\n"
	"it leaves after KBSUP_IDLE (default 5m) without sessions and clients.\n"
	"\n"
	"  --foreground  stay attached and log to standard error (also for systemd, with\n"
	"                socket activation)\n"
	"  --daemon      go to the background and log to the state directory\n"
	"  --version     print the version\n"
	"  --help        print this\n";

static int run_link(const struct options *o)
{
	return kb_link_role(KB_ROLE_FD, &o->link);
}

static int run_store(const struct options *o)
{
	return kb_store_role(o->store);
}

static int run_reader(const struct options *o)
{
	return kb_reader_role(o->store);
}

static int run_importer(const struct options *o)
{
	return kb_import_role();
}

static int run_broker(const struct options *o)
{
	return kb_broker_role(KB_ROLE_FD);
}

static const struct {
	const char *name;
	int (*run)(const struct options *o);
} roles[] = {{"store", run_store}, {"link", run_link}, {"broker", run_broker},
	{"reader", run_reader}, {"importer", run_importer}};

static int run_role(const struct options *o)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(roles); i++) {
		if (strcmp(roles[i].name, o->role) != 0)
			continue;
		kb_log_init(roles[i].name);
		return roles[i].run(o);
	}
	fprintf(stderr, "kbsupd: there is no role '%s'\n", o->role);
	return 2;
}

/* The starter waits for our parent; the supervisor is nobody's child. */
static int go_to_background(void)
{
	pid_t pid = fork();

	if (pid < 0) {
		fprintf(stderr, "kbsupd: a process cannot be started: %s\n", strerror(errno));
		return -1;
	}
	if (pid > 0)
		_exit(0);
	(void)setsid();
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {{"foreground", no_argument, NULL, 'f'},
		{"daemon", no_argument, NULL, 'd'}, {"ready-fd", required_argument, NULL, 'r'},
		{"role", required_argument, NULL, 'R'}, {"store", required_argument, NULL, 's'},
		{"machine", required_argument, NULL, 'm'},
		{"transport", required_argument, NULL, 't'},
		{"address", required_argument, NULL, 'a'}, {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		o->foreground |= c == 'f';
		o->daemon |= c == 'd';
		o->help |= c == 'h';
		o->version |= c == 'v';
		if (c == 'R')
			o->role = optarg;
		if (c == 's')
			o->store = optarg;
		if (c == 'm')
			o->link.machine = optarg;
		if (c == 't')
			o->link.transport = optarg;
		if (c == 'a')
			o->link.address = optarg;
		if (c == '?' || (c == 'r' && !kb_parse_u64(optarg, &o->ready_fd)))
			return -1;
	}
	return optind == argc && !(o->foreground && o->daemon) ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct options o = {.ready_fd = UINT64_MAX,
		.store = "",
		.link = {.machine = "local", .transport = "pipe", .address = ""}};
	struct kb_main_options main_options = {.ready_fd = -1};

	if (parse(argc, argv, &o) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	if (o.help || o.version) {
		printf(o.help ? "%s" : "kbsupd %s\n", o.help ? usage : kb_build_id());
		return 0;
	}
	umask(077);
	kb_own_env_reduce();
	if (o.role)
		return run_role(&o);
	kb_log_init("kbsupd");
	if (!getenv("KBSUP_LOG"))
		kb_log_set_level(KB_LOG_INFO);
	main_options.foreground = !o.daemon;
	if (o.ready_fd < INT32_MAX)
		main_options.ready_fd = (int)o.ready_fd;
	if (o.daemon && go_to_background() < 0)
		return 1;
	return kb_main_run(&main_options);
}
