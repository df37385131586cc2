/* The contents of files over SFTP, in steps that never wait. A file there is written beside its
 * place and renamed into it; one that failed half-way is removed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ssh_private.h"

#define BLOCK	   (256u << 10)
#define PART	   ".kbsup-part"
#define PERMISSION 0777u

enum state { BEGIN, OPENING, MEASURE, COPY, SYNC, CLOSE, REPLACE, RENAME, REMOVE, DONE };

struct transfer {
	struct kb_ssh_job job;	 /* first: a job is cast to its transfer */
	struct kb_ssh_copy copy; /* path is ours */
	char *part;
	bool put;
	enum state state;
	LIBSSH2_SFTP_HANDLE *handle;
	uint8_t *block;
	size_t have, sent; /* put: bytes in block, and how many of them are there */
	bool read_all;
	uint64_t done, total;
	struct kb_err fault; /* code 0: none */
};

/* Something there failed. */
static void spoil(struct kb_ssh *ssh, struct transfer *t, const char *what)
{
	struct kb_err err;
	bool broken = kb_ssh_sftp_error(ssh, t->copy.path, what, &err);

	if (!t->fault.code)
		t->fault = err;
	if (broken)
		kb_ssh_fail(ssh, &err);
	else
		t->state = t->handle ? CLOSE : t->state == REMOVE ? DONE : REMOVE;
}

/* Something here did. */
static void spoil_here(struct transfer *t, int errnum, const char *what)
{
	kb_err_sys(&t->fault, errnum, "a file here cannot be %s", what);
	t->state = CLOSE;
}

/* ---- Steps: true when something happened ----------------------------------------------------- */

static bool begin_step(struct kb_ssh *ssh, struct transfer *t)
{
	struct stat st;

	if (t->put && fstat(t->copy.fd, &st) == 0 && S_ISREG(st.st_mode))
		t->total = (uint64_t)st.st_size;
	t->state = OPENING;
	return true;
}

static bool open_step(struct kb_ssh *ssh, struct transfer *t)
{
	const char *path = t->put ? t->part : t->copy.path;
	unsigned long flags = t->put ? LIBSSH2_FXF_WRITE | LIBSSH2_FXF_CREAT | LIBSSH2_FXF_TRUNC
				     : LIBSSH2_FXF_READ;

	t->handle = libssh2_sftp_open_ex(ssh->sftp, path, (unsigned)strlen(path), flags,
		(long)(t->copy.mode & PERMISSION), LIBSSH2_SFTP_OPENFILE);
	if (!t->handle && kb_ssh_waits(libssh2_session_last_errno(ssh->session)))
		return false;
	if (!t->handle) {
		spoil(ssh, t, "opened");
		if (t->state == REMOVE)
			t->state = DONE;
	} else {
		t->state = MEASURE;
	}
	return true;
}

/* What a put makes has the asked mode whatever the umask there; of what a get reads, the size. */
static bool measure_step(struct kb_ssh *ssh, struct transfer *t)
{
	LIBSSH2_SFTP_ATTRIBUTES attrs = {0};
	int rc;

	if (t->put) {
		attrs.flags = LIBSSH2_SFTP_ATTR_PERMISSIONS;
		attrs.permissions = t->copy.mode & PERMISSION;
	}
	rc = libssh2_sftp_fstat_ex(t->handle, &attrs, t->put);
	if (kb_ssh_waits(rc))
		return false;
	if (rc == 0 && !t->put && (attrs.flags & LIBSSH2_SFTP_ATTR_SIZE))
		t->total = attrs.filesize;
	t->state = COPY;
	if (rc < 0 && t->put)
		spoil(ssh, t, "given its mode");
	return true;
}

static void report(struct transfer *t, size_t n)
{
	t->done += n;
	if (t->copy.progress)
		t->copy.progress(t->done, t->total, t->copy.arg);
}

static bool put_step(struct kb_ssh *ssh, struct transfer *t)
{
	ssize_t n;

	if (t->have == 0 && !t->read_all) {
		n = read(t->copy.fd, t->block, BLOCK);
		if (n < 0 && errno == EINTR)
			return true;
		if (n < 0) {
			spoil_here(t, errno, "read");
			return true;
		}
		t->read_all = n == 0;
		t->have = (size_t)n;
		t->sent = 0;
	}
	if (t->have == 0) {
		t->state = SYNC;
		return true;
	}
	if (kb_buf_len(&ssh->out) >= KB_SSH_OUT_HIGH)
		return false;
	n = libssh2_sftp_write(t->handle, (const char *)t->block + t->sent, t->have - t->sent);
	if (kb_ssh_waits((int)n))
		return false;
	if (n < 0) {
		spoil(ssh, t, "written");
		return true;
	}
	t->sent += (size_t)n;
	if (t->sent == t->have)
		t->have = 0;
	report(t, (size_t)n);
	return true;
}

static bool get_step(struct kb_ssh *ssh, struct transfer *t)
{
	ssize_t n = libssh2_sftp_read(t->handle, (char *)t->block, BLOCK);
	size_t off = 0;

	if (kb_ssh_waits((int)n))
		return false;
	if (n < 0) {
		spoil(ssh, t, "read");
		return true;
	}
	if (n == 0) {
		t->state = CLOSE;
		return true;
	}
	while (off < (size_t)n) {
		ssize_t w = write(t->copy.fd, t->block + off, (size_t)n - off);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			spoil_here(t, errno, "written");
			return true;
		}
		off += (size_t)w;
	}
	report(t, (size_t)n);
	return true;
}

static bool copy_step(struct kb_ssh *ssh, struct transfer *t)
{
	return t->put ? put_step(ssh, t) : get_step(ssh, t);
}

static bool sync_step(struct kb_ssh *ssh, struct transfer *t)
{
	/* Not every server can; a rename is all there is then. */
	if (!t->copy.soon && kb_ssh_waits(libssh2_sftp_fsync(t->handle)))
		return false;
	t->state = CLOSE;
	return true;
}

static bool close_step(struct kb_ssh *ssh, struct transfer *t)
{
	int rc = t->handle ? libssh2_sftp_close_handle(t->handle) : 0;

	if (kb_ssh_waits(rc))
		return false;
	t->handle = NULL;
	t->state = !t->put ? DONE : t->fault.code ? REMOVE : REPLACE;
	if (rc < 0 && t->put)
		spoil(ssh, t, "written");
	return true;
}

/* Version 3 of the protocol renames onto nothing. */
static bool replace_step(struct kb_ssh *ssh, struct transfer *t)
{
	if (kb_ssh_waits(libssh2_sftp_unlink_ex(
		    ssh->sftp, t->copy.path, (unsigned)strlen(t->copy.path))))
		return false;
	t->state = RENAME;
	return true;
}

static bool rename_step(struct kb_ssh *ssh, struct transfer *t)
{
	int rc = libssh2_sftp_rename_ex(ssh->sftp, t->part, (unsigned)strlen(t->part), t->copy.path,
		(unsigned)strlen(t->copy.path), LIBSSH2_SFTP_RENAME_NATIVE);

	if (kb_ssh_waits(rc))
		return false;
	t->state = DONE;
	if (rc < 0)
		spoil(ssh, t, "put in its place");
	return true;
}

static bool remove_step(struct kb_ssh *ssh, struct transfer *t)
{
	if (t->put &&
		kb_ssh_waits(libssh2_sftp_unlink_ex(ssh->sftp, t->part, (unsigned)strlen(t->part))))
		return false;
	t->state = DONE;
	return true;
}

static void tell(struct kb_ssh_job *job, const struct kb_err *why)
{
	struct transfer *t = (struct transfer *)job;

	t->copy.done(why, t->copy.arg);
}

static void drop(struct kb_ssh *ssh, struct kb_ssh_job *job)
{
	struct transfer *t = (struct transfer *)job;

	if (t->handle)
		(void)libssh2_sftp_close_handle(t->handle);
	free((char *)t->copy.path);
	free(t->part);
	free(t->block);
	free(t);
}

static bool done_step(struct kb_ssh *ssh, struct transfer *t)
{
	struct kb_err why = t->fault;

	kb_ssh_job_end(ssh, &t->job, why.code ? &why : NULL);
	return true;
}

static bool step(struct kb_ssh *ssh, struct kb_ssh_job *job)
{
	static bool (*const steps[])(struct kb_ssh *, struct transfer *) = {
		[BEGIN] = begin_step,
		[OPENING] = open_step,
		[MEASURE] = measure_step,
		[COPY] = copy_step,
		[SYNC] = sync_step,
		[CLOSE] = close_step,
		[REPLACE] = replace_step,
		[RENAME] = rename_step,
		[REMOVE] = remove_step,
		[DONE] = done_step,
	};
	struct transfer *t = (struct transfer *)job;

	return steps[t->state](ssh, t);
}

void kb_ssh_copy_cancel(struct kb_ssh *ssh)
{
	struct kb_ssh_job *job = TAILQ_FIRST(&ssh->jobs);
	struct transfer *t = job && job->step == step ? (struct transfer *)job : NULL;

	/* What is there under its name stays; before, what was written goes. */
	if (!t || t->fault.code || t->state >= REPLACE)
		return;
	kb_err_set(&t->fault, KB_ERR_CLOSED, "cancelled");
	t->state = t->handle ? CLOSE : t->state > OPENING ? REMOVE : DONE;
	kb_ssh_kick(ssh);
}

static int add(struct kb_ssh *ssh, const struct kb_ssh_copy *copy, bool put, struct kb_err *err)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t)
		return kb_err_nomem(err);
	t->job = (struct kb_ssh_job){.step = step, .tell = tell, .drop = drop};
	t->copy = *copy;
	t->put = put;
	t->copy.path = strdup(copy->path);
	t->part = kb_asprintf("%s" PART, copy->path);
	t->block = malloc(BLOCK);
	if (!t->copy.path || !t->part || !t->block) {
		drop(ssh, &t->job);
		return kb_err_nomem(err);
	}
	return kb_ssh_job_add(ssh, &t->job, err);
}

int kb_ssh_put(struct kb_ssh *ssh, const struct kb_ssh_copy *copy, struct kb_err *err)
{
	return add(ssh, copy, true, err);
}

int kb_ssh_get(struct kb_ssh *ssh, const struct kb_ssh_copy *copy, struct kb_err *err)
{
	return add(ssh, copy, false, err);
}
