#include "term.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "supervisor/base/util.h"

/* What a signal handler must reach: set before `active`, read only while it is. */
static struct termios saved;
static int terminal = -1;
static volatile sig_atomic_t active;

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

void kb_term_restore(void)
{
	int saved_errno = errno;

	if (active) {
		active = 0;
		tcsetattr(terminal, TCSADRAIN, &saved);
	}
	errno = saved_errno;
}

static void on_fatal(int signo)
{
	kb_term_restore();
	raise(signo); /* the handler is gone (SA_RESETHAND): this ends the process as it should */
}

static void install_once(void)
{
	static bool done;
	struct sigaction action = {.sa_handler = on_fatal, .sa_flags = SA_RESETHAND | SA_NODEFER};

	if (done)
		return;
	done = true;
	atexit(kb_term_restore);
	for (size_t i = 0; i < KB_ARRAY_LEN(fatal_signals); i++)
		sigaction(fatal_signals[i], &action, NULL);
}

static int change(int fd, void (*how)(struct termios *mode), struct kb_err *err)
{
	struct termios mode;

	if (tcgetattr(fd, &mode) < 0)
		return kb_err_sys(err, errno, "the terminal cannot be asked for its settings");
	install_once();
	saved = mode;
	terminal = fd;
	how(&mode);
	/* active first: a signal between the two restores what was there anyway. */
	active = 1;
	if (tcsetattr(fd, TCSADRAIN, &mode) < 0) {
		active = 0;
		return kb_err_sys(err, errno, "the settings of the terminal cannot be changed");
	}
	return 0;
}

int kb_term_raw(int fd, struct kb_err *err)
{
	return change(fd, cfmakeraw, err);
}

/* Lines, but unseen. Stopping is off: who continues would find the echo on again. */
static void make_quiet(struct termios *mode)
{
	mode->c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	mode->c_lflag |= ICANON | ISIG;
	mode->c_cc[VSUSP] = _POSIX_VDISABLE;
}

int kb_term_quiet(int fd, struct kb_err *err)
{
	return change(fd, make_quiet, err);
}

bool kb_term_size(int fd, uint32_t *ret_rows, uint32_t *ret_cols)
{
	struct winsize size;

	if (ioctl(fd, TIOCGWINSZ, &size) < 0 || !size.ws_row || !size.ws_col)
		return false;
	*ret_rows = size.ws_row;
	*ret_cols = size.ws_col;
	return true;
}
