#include "named.h"

#include "connect.h"
#include "supervisor/base/dirs.h"
#include "vmctl/vmctl.h"

int kb_names_machine(const char *name, bool *ret, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_sessions sessions KB_SESSIONS_CLEANUP = {0};
	struct kb_dirs dirs;
	bool running = false;
	int r = kb_dirs_find(&dirs, err);
	char *state KB_FREE = kb_xprintf("%s/vm", dirs.state);

	*ret = r == 0 && kb_vm_known(state, name);
	if (r < 0 || !*ret)
		return r;
	r = kb_connect_running(&connection, &running, err);
	if (r == 0 && running)
		r = kb_sessions_read(&sessions, &connection, err);
	if (r < 0 || !kb_session_find(sessions.list, sessions.len, name))
		return r;
	kb_err_set(err, KB_ERR_USAGE, "'%s' is a session and a machine", name);
	return kb_err_hint(err,
		"a machine is meant by: kbsup vm stop, kbsup vm console; a session by its id: "
		"kbsup ps");
}
