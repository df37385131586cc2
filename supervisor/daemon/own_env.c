#include "own_env.h"

#include <string.h>
#include <unistd.h>

#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

static const char *const names[] = {"HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "LC_CTYPE",
	"TZ", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
	"DBUS_SESSION_BUS_ADDRESS", "SSL_CERT_FILE", "SSL_CERT_DIR", "LISTEN_PID", "LISTEN_FDS",
	"LISTEN_FDNAMES", "NOTIFY_SOCKET", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"};

bool kb_own_env_passes(const char *entry)
{
	if (strncmp(entry, "KBSUP_", 6) == 0)
		return true;
	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
		size_t len = strlen(names[i]);

		if (strncmp(entry, names[i], len) == 0 && entry[len] == '=')
			return true;
	}
	return false;
}

void kb_own_env_reduce(void)
{
	char **to = environ;

	for (char **from = environ; *from; from++) {
		if (kb_own_env_passes(*from))
			*to++ = *from;
		else
			kb_os_wipe(*from, strlen(*from));
	}
	*to = NULL;
}
