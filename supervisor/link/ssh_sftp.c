/* Work on files over SFTP: the queue of jobs, and the requests that are small. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_private.h"

#define PERMISSION 07777u

/* ---- What went wrong ------------------------------------------------------------------------- */

static const char *sftp_text(unsigned long code)
{
	static const char *const texts[] = {
		[LIBSSH2_FX_NO_SUCH_FILE] = "there is no such file",
		[LIBSSH2_FX_PERMISSION_DENIED] = "permission denied",
		[LIBSSH2_FX_FAILURE] = "it failed there (a full disk, a directory?)",
		[LIBSSH2_FX_OP_UNSUPPORTED] = "not supported there",
		[LIBSSH2_FX_NO_SPACE_ON_FILESYSTEM] = "the disk is full there",
		[LIBSSH2_FX_QUOTA_EXCEEDED] = "the quota is used up there",
	};

	return code < KB_ARRAY_LEN(texts) && texts[code] ? texts[code] : "it failed there";
}

bool kb_ssh_sftp_error(struct kb_ssh *ssh, const char *path, const char *what, struct kb_err *ret)
{
	int rc = libssh2_session_last_errno(ssh->session);
	unsigned long code = ssh->sftp ? libssh2_sftp_last_error(ssh->sftp) : LIBSSH2_FX_FAILURE;
	char shown[256];

	kb_escape(shown, sizeof(shown), path, strlen(path));
	if (rc == LIBSSH2_ERROR_SFTP_PROTOCOL && ssh->sftp)
		kb_err_set(ret, code == LIBSSH2_FX_NO_SUCH_FILE ? KB_ERR_NOTFOUND : KB_ERR_FAILED,
			"%s: %s cannot be %s: %s", ssh->where, shown, what, sftp_text(code));
	else
		kb_ssh_error(ssh, ret, "files cannot be copied");
	return kb_ssh_is_fatal(rc);
}

/* ---- The queue ------------------------------------------------------------------------------- */

int kb_ssh_job_add(struct kb_ssh *ssh, struct kb_ssh_job *job, struct kb_err *err)
{
	if (ssh->phase == KB_SSH_OVER) {
		job->drop(ssh, job);
		return kb_err_set(err, KB_ERR_CLOSED, "%s: the connection is over", ssh->where);
	}
	TAILQ_INSERT_TAIL(&ssh->jobs, job, entry);
	kb_ssh_kick(ssh);
	return 0;
}

void kb_ssh_job_end(struct kb_ssh *ssh, struct kb_ssh_job *job, const struct kb_err *why)
{
	TAILQ_REMOVE(&ssh->jobs, job, entry);
	job->tell(job, why);
	job->drop(ssh, job);
}

/* 1: there, 0: not yet, negative: the server has none. */
static int open_sftp(struct kb_ssh *ssh, struct kb_err *err)
{
	if (!ssh->sftp)
		ssh->sftp = libssh2_sftp_init(ssh->session);
	if (ssh->sftp)
		return 1;
	if (kb_ssh_waits(libssh2_session_last_errno(ssh->session)))
		return 0;
	return kb_ssh_error(ssh, err, "files cannot be copied");
}

bool kb_ssh_jobs_step(struct kb_ssh *ssh)
{
	struct kb_ssh_job *job = TAILQ_FIRST(&ssh->jobs);
	struct kb_err err;
	int r;

	if (!job || ssh->phase != KB_SSH_READY)
		return false;
	r = open_sftp(ssh, &err);
	if (r > 0)
		return job->step(ssh, job);
	if (r < 0 && kb_ssh_is_fatal(libssh2_session_last_errno(ssh->session)))
		kb_ssh_fail(ssh, &err);
	else if (r < 0)
		kb_ssh_job_end(ssh, job, &err);
	return r < 0;
}

void kb_ssh_jobs_end(struct kb_ssh *ssh, const struct kb_err *why)
{
	struct kb_ssh_job *job;

	TAILQ_FOREACH(job, &ssh->jobs, entry)
		if (why && !job->told) {
			job->told = true;
			job->tell(job, why);
		}
	/* A step may stand on the first: they go with the connection. */
	while (!why && (job = TAILQ_FIRST(&ssh->jobs))) {
		TAILQ_REMOVE(&ssh->jobs, job, entry);
		job->drop(ssh, job);
	}
}

/* ---- Small requests -------------------------------------------------------------------------- */

enum verb { STAT, LIST, READLINK, MKDIR, CHMOD, SYMLINK };

struct request {
	struct kb_ssh_job job; /* first: a job is cast to its request */
	enum verb verb;
	char *path, *target;
	unsigned mode;
	bool follow;
	int stage; /* SYMLINK: clear its place, make it, look at it */
	LIBSSH2_SFTP_HANDLE *dir;
	bool read_all, spoilt;
	struct kb_err why; /* of a listing that is spoilt */
	/* The answer, and whose it is. */
	struct kb_ssh_attrs attrs;
	char text[PATH_MAX];
	struct kb_ssh_lister lister;
	kb_ssh_attrs_fn on_attrs;
	kb_ssh_text_fn on_text;
	kb_ssh_done_fn on_done;
	void *arg;
};

static void tell(struct kb_ssh_job *job, const struct kb_err *why)
{
	struct request *q = (struct request *)job;

	if (q->verb == STAT)
		q->on_attrs(why ? NULL : &q->attrs, why, q->arg);
	else if (q->verb == READLINK)
		q->on_text(why ? NULL : q->text, why, q->arg);
	else if (q->verb == LIST)
		q->lister.done(why, q->lister.arg);
	else
		q->on_done(why, q->arg);
}

static void drop(struct kb_ssh *ssh, struct kb_ssh_job *job)
{
	struct request *q = (struct request *)job;

	if (q->dir)
		(void)libssh2_sftp_close_handle(q->dir);
	free(q->path);
	free(q->target);
	free(q);
}

static void read_attrs(const LIBSSH2_SFTP_ATTRIBUTES *from, struct kb_ssh_attrs *to)
{
	to->mode = from->flags & LIBSSH2_SFTP_ATTR_PERMISSIONS ? (unsigned)from->permissions : 0;
	to->size = from->flags & LIBSSH2_SFTP_ATTR_SIZE ? from->filesize : 0;
}

static int do_stat(struct kb_ssh *ssh, struct request *q)
{
	LIBSSH2_SFTP_ATTRIBUTES attrs = {0};
	int rc = libssh2_sftp_stat_ex(ssh->sftp, q->path, (unsigned)strlen(q->path),
		q->follow ? LIBSSH2_SFTP_STAT : LIBSSH2_SFTP_LSTAT, &attrs);

	if (rc == 0)
		read_attrs(&attrs, &q->attrs);
	return rc;
}

static int do_chmod(struct kb_ssh *ssh, struct request *q)
{
	LIBSSH2_SFTP_ATTRIBUTES attrs = {
		.flags = LIBSSH2_SFTP_ATTR_PERMISSIONS, .permissions = q->mode & PERMISSION};

	return libssh2_sftp_stat_ex(
		ssh->sftp, q->path, (unsigned)strlen(q->path), LIBSSH2_SFTP_SETSTAT, &attrs);
}

static int do_mkdir(struct kb_ssh *ssh, struct request *q)
{
	return libssh2_sftp_mkdir_ex(
		ssh->sftp, q->path, (unsigned)strlen(q->path), (long)(q->mode & PERMISSION));
}

static int do_readlink(struct kb_ssh *ssh, struct request *q)
{
	int rc = libssh2_sftp_symlink_ex(ssh->sftp, q->path, (unsigned)strlen(q->path), q->text,
		sizeof(q->text) - 1, LIBSSH2_SFTP_READLINK);

	if (rc >= 0)
		q->text[rc] = '\0';
	return rc < 0 ? rc : 0;
}

/* OpenSSH takes the two paths in the other order than the protocol's draft has them; libssh2 sends
 * them as they come. It takes the number of the request for the answer (1.10), so what came of it
 * is looked up. */
static int do_symlink(struct kb_ssh *ssh, struct request *q)
{
	int rc = 0;

	if (q->stage == 0)
		rc = libssh2_sftp_unlink_ex(ssh->sftp, q->path, (unsigned)strlen(q->path));
	else if (q->stage == 1)
		rc = libssh2_sftp_symlink_ex(ssh->sftp, q->target, (unsigned)strlen(q->target),
			q->path, (unsigned)strlen(q->path), LIBSSH2_SFTP_SYMLINK);
	else
		rc = do_readlink(ssh, q);
	if (kb_ssh_waits(rc) || kb_ssh_is_fatal(rc))
		return rc;
	if (q->stage++ < 2)
		return do_symlink(ssh, q);
	return rc == 0 && !strcmp(q->text, q->target) ? 0 : LIBSSH2_ERROR_SFTP_PROTOCOL;
}

static void end(struct kb_ssh *ssh, struct request *q, int rc, const char *what)
{
	struct kb_err err;

	if (rc >= 0)
		kb_ssh_job_end(ssh, &q->job, NULL);
	else if (kb_ssh_sftp_error(ssh, q->path, what, &err))
		kb_ssh_fail(ssh, &err);
	else
		kb_ssh_job_end(ssh, &q->job, &err);
}

static const struct {
	int (*fn)(struct kb_ssh *ssh, struct request *q);
	const char *what;
} verbs[] = {
	[STAT] = {do_stat, "looked at"},
	[READLINK] = {do_readlink, "read"},
	[MKDIR] = {do_mkdir, "made"},
	[CHMOD] = {do_chmod, "given its mode"},
	[SYMLINK] = {do_symlink, "made a link"},
};

static bool small_step(struct kb_ssh *ssh, struct kb_ssh_job *job)
{
	struct request *q = (struct request *)job;
	int rc = verbs[q->verb].fn(ssh, q);

	if (kb_ssh_waits(rc))
		return false;
	end(ssh, q, rc, verbs[q->verb].what);
	return true;
}

/* ---- Listings -------------------------------------------------------------------------------- */

static bool read_entry(struct kb_ssh *ssh, struct request *q)
{
	LIBSSH2_SFTP_ATTRIBUTES attrs = {0};
	char name[KB_SSH_NAME_MAX + 1];
	struct kb_ssh_attrs got;
	int rc = libssh2_sftp_readdir_ex(q->dir, name, sizeof(name) - 1, NULL, 0, &attrs);

	if (kb_ssh_waits(rc))
		return false;
	if (rc < 0 && !q->spoilt) {
		q->spoilt = true;
		if (kb_ssh_sftp_error(ssh, q->path, "listed", &q->why)) {
			kb_ssh_fail(ssh, &q->why);
			return true;
		}
	}
	q->read_all = rc <= 0;
	if (q->read_all)
		return true;
	name[rc] = '\0';
	read_attrs(&attrs, &got);
	if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		q->lister.entry(name, &got, q->lister.arg);
	return true;
}

static bool list_step(struct kb_ssh *ssh, struct kb_ssh_job *job)
{
	struct request *q = (struct request *)job;
	int rc;

	if (!q->dir) {
		q->dir = libssh2_sftp_open_ex(
			ssh->sftp, q->path, (unsigned)strlen(q->path), 0, 0, LIBSSH2_SFTP_OPENDIR);
		rc = q->dir ? 0 : libssh2_session_last_errno(ssh->session);
		if (!kb_ssh_waits(rc) && rc < 0)
			end(ssh, q, rc, "listed");
		return !kb_ssh_waits(rc);
	}
	if (!q->read_all)
		return read_entry(ssh, q);
	if (kb_ssh_waits(libssh2_sftp_close_handle(q->dir)))
		return false;
	q->dir = NULL;
	kb_ssh_job_end(ssh, &q->job, q->spoilt ? &q->why : NULL);
	return true;
}

/* ---- Asking ---------------------------------------------------------------------------------- */

/* Takes what it is like from `like`, but for the strings. */
static int ask(struct kb_ssh *ssh, const struct request *like, const char *path, const char *target,
	struct kb_err *err)
{
	struct request *q = malloc(sizeof(*q));

	if (!q)
		return kb_err_nomem(err);
	*q = *like;
	q->job = (struct kb_ssh_job){
		.step = like->verb == LIST ? list_step : small_step, .tell = tell, .drop = drop};
	q->path = strdup(path);
	q->target = target ? strdup(target) : NULL;
	if (!q->path || (target && !q->target)) {
		drop(ssh, &q->job);
		return kb_err_nomem(err);
	}
	return kb_ssh_job_add(ssh, &q->job, err);
}

int kb_ssh_stat(struct kb_ssh *ssh, const char *path, bool follow, kb_ssh_attrs_fn fn, void *arg,
	struct kb_err *err)
{
	struct request q = {.verb = STAT, .follow = follow, .on_attrs = fn, .arg = arg};

	return ask(ssh, &q, path, NULL, err);
}

int kb_ssh_list(struct kb_ssh *ssh, const char *path, const struct kb_ssh_lister *lister,
	struct kb_err *err)
{
	struct request q = {.verb = LIST, .lister = *lister};

	return ask(ssh, &q, path, NULL, err);
}

int kb_ssh_readlink(
	struct kb_ssh *ssh, const char *path, kb_ssh_text_fn fn, void *arg, struct kb_err *err)
{
	struct request q = {.verb = READLINK, .on_text = fn, .arg = arg};

	return ask(ssh, &q, path, NULL, err);
}

int kb_ssh_mkdir(struct kb_ssh *ssh, const char *path, unsigned mode, kb_ssh_done_fn fn, void *arg,
	struct kb_err *err)
{
	struct request q = {.verb = MKDIR, .mode = mode, .on_done = fn, .arg = arg};

	return ask(ssh, &q, path, NULL, err);
}

int kb_ssh_chmod(struct kb_ssh *ssh, const char *path, unsigned mode, kb_ssh_done_fn fn, void *arg,
	struct kb_err *err)
{
	struct request q = {.verb = CHMOD, .mode = mode, .on_done = fn, .arg = arg};

	return ask(ssh, &q, path, NULL, err);
}

int kb_ssh_symlink(struct kb_ssh *ssh, const char *path, const char *target, kb_ssh_done_fn fn,
	void *arg, struct kb_err *err)
{
	struct request q = {.verb = SYMLINK, .on_done = fn, .arg = arg};

	return ask(ssh, &q, path, target, err);
}
