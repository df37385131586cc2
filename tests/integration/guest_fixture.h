/* What the guest's tests share: a directory, a guest in it as root or as an ordinary user, and ways
 * to see what is left of it. */
#pragma once

#include "fake_link.h"
#include "supervisor/base/str.h"

struct fixture {
	uid_t uid; /* of the guest; 0: root */
	char *dir, *state, *workspace, *link_workspace;
	char *guest; /* the program, where uid can reach it */
	char *nap;   /* "sleep N", long, with a number no other test has */
	char *blink; /* the same, for a twentieth of a second */
	struct fl_link *link;
};

/* argv: "root" or "user", then the directories of kbsup-guest and kbsup-init. False (and the reason
 * printed) when this machine cannot. */
bool fixture_select(int argc, char **argv);
int fixture_open(void **state);
int fixture_close(void **state);
/* Lose the link, wait for the guest's end, start another. */
void fixture_reopen(struct fixture *f);
void fixture_mkdir(const struct fixture *f, const char *path);
/* Processes of this machine whose command line, arguments joined by blanks, is exactly this. */
unsigned fixture_processes(const struct fixture *f, const char *command);
/* Until there are that many of them. */
void fixture_wait_processes(const struct fixture *f, const char *command, unsigned n);
/* SIGKILL to one session's process; to the guest and all its children at once. */
void fixture_kill_session(const struct fixture *f, const struct fl_session *s);
void fixture_kill_everything(const struct fixture *f);
/* All descendants of the guest, itself included. */
unsigned fixture_descendants(const struct fixture *f, pid_t *ret, unsigned max);
/* No state directory, mount or control group of an ended session is left. */
void fixture_assert_clean(const struct fixture *f);
/* Is there a record of this event whose text, path, exe or argument holds `text`? */
bool fixture_has_record(const struct fl_session *s, enum kb_event event, const char *text);
enum kb_event fixture_event_at(const struct fl_session *s, uint64_t seq);
