/* kbsup vm start --gui: a window on the screen of a machine */
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "supervisor/base/util.h"
#include "vm.h"

extern char **environ;

/* Viewers that show what is behind a socket of this host, in order of preference. */
static const struct {
	char *program;
	const char *prefix; /* of the socket's path */
} viewers[] = {
	{"remote-viewer", "vnc+unix://"},
	{"vncviewer", ""},
	{"gvncviewer", ""},
};

static bool desktop(void)
{
	const char *x11 = getenv("DISPLAY"), *wayland = getenv("WAYLAND_DISPLAY");

	return (x11 && *x11) || (wayland && *wayland);
}

/* The window outlives us, and says nothing on our terminal. */
static bool open_window(const char *screen, const char **ret_program)
{
	posix_spawn_file_actions_t quiet;
	posix_spawnattr_t apart;
	bool open = false;
	pid_t pid;

	if (posix_spawn_file_actions_init(&quiet) != 0)
		return false;
	if (posix_spawnattr_init(&apart) != 0) {
		posix_spawn_file_actions_destroy(&quiet);
		return false;
	}
	posix_spawnattr_setflags(&apart, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
	for (int fd = 0; fd <= 2; fd++)
		posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", O_RDWR, 0);
	for (size_t i = 0; i < KB_ARRAY_LEN(viewers) && !open; i++) {
		char *target KB_FREE = kb_xprintf("%s%s", viewers[i].prefix, screen);
		char *argv[] = {viewers[i].program, target, NULL};

		open = posix_spawnp(&pid, argv[0], &quiet, &apart, argv, environ) == 0;
		*ret_program = argv[0];
	}
	posix_spawnattr_destroy(&apart);
	posix_spawn_file_actions_destroy(&quiet);
	return open;
}

void kb_vm_show_screen(const struct kb_vm_info *info)
{
	const char *program;

	if (!desktop())
		fprintf(stderr, "kbsup: there is no desktop here; its screen is at %s (VNC)\n",
			info->screen);
	else if (open_window(info->screen, &program))
		fprintf(stderr, "kbsup: %s shows its screen, which is at %s (VNC)\n", program,
			info->screen);
	else
		fprintf(stderr,
			"kbsup: its screen is at %s (VNC); to have it shown: apt-get install "
			"tigervnc-viewer\n",
			info->screen);
}
