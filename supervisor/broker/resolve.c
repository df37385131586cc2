/* A job is the question for one name. While its thread runs it belongs to the thread, but for the
 * list of who waits and its place in the lists, which the thread does not look at; the thread gives
 * it back by writing its address into the pipe. The pipe's ends stay open as long as a thread may
 * write: to the end of the process, if the resolver goes first. */
#include "resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "http.h"
#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

struct kb_question {
	struct kb_question *next;
	kb_resolve_fn fn; /* NULL: cancelled */
	void *arg;
};

struct answer {
	struct kb_address addresses[KB_RESOLVE_ANSWERS];
	size_t n;
	int result; /* of getaddrinfo(3) */
};

struct job {
	TAILQ_ENTRY(job) entry;
	char name[KB_HOST_MAX];
	int pipe;
	struct answer answer;
	struct kb_question *waiting, **last;
};

TAILQ_HEAD(jobs, job);

struct kept {
	char name[KB_HOST_MAX];
	int64_t until; /* ns, monotonic */
	struct answer answer;
};

struct kb_resolver {
	int pipe[2];
	struct kb_source *io;
	struct kb_source *kick;		    /* answers that were kept are due */
	struct jobs queued, running, known; /* known: the answer is there */
	unsigned threads, open;
	struct kept kept[KB_RESOLVE_KEPT];
	unsigned next_kept;
};

/* ---- The thread ------------------------------------------------------------------------------ */

static void take_address(struct answer *a, const struct addrinfo *info)
{
	struct kb_address *to = &a->addresses[a->n];

	if (info->ai_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)info->ai_addr;

		memcpy(to->bytes, &in->sin_addr, 4);
		to->len = 4;
		a->n++;
	} else if (info->ai_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)info->ai_addr;

		memcpy(to->bytes, &in6->sin6_addr, 16);
		to->len = 16;
		a->n++;
	}
}

static void *work(void *arg)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct job *job = arg;
	struct answer *a = &job->answer;
	struct addrinfo *list = NULL;

	a->result = getaddrinfo(job->name, NULL, &hints, &list);
	for (struct addrinfo *i = a->result == 0 ? list : NULL; i && a->n < KB_RESOLVE_ANSWERS;
		i = i->ai_next)
		take_address(a, i);
	if (a->result == 0)
		freeaddrinfo(list);
	while (write(job->pipe, &job, sizeof(job)) < 0 && errno == EINTR)
		;
	return NULL;
}

static int start_thread(struct job *job)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attr, work, job);
	pthread_attr_destroy(&attr);
	return r;
}

/* ---- Jobs ------------------------------------------------------------------------------------ */

static void deliver(struct kb_resolver *resolver, struct job *job)
{
	const struct answer *a = &job->answer;
	const char *why = a->result ? gai_strerror(a->result) : "it has no address";
	struct kb_question *q;

	while ((q = job->waiting)) {
		job->waiting = q->next;
		resolver->open--;
		if (q->fn)
			q->fn(a->n ? a->addresses : NULL, a->n, a->n ? NULL : why, q->arg);
		free(q);
	}
	free(job);
}

/* Where no thread can be had, the job has failed. */
static void start_jobs(struct kb_resolver *resolver)
{
	struct job *job;

	while (resolver->threads < KB_RESOLVE_THREADS && (job = TAILQ_FIRST(&resolver->queued))) {
		TAILQ_REMOVE(&resolver->queued, job, entry);
		if (start_thread(job) == 0) {
			resolver->threads++;
			TAILQ_INSERT_TAIL(&resolver->running, job, entry);
			continue;
		}
		job->answer.result = EAI_AGAIN;
		TAILQ_INSERT_TAIL(&resolver->known, job, entry);
		(void)kb_source_arm(resolver->kick, 0, NULL);
	}
}

/* Only what is good: a name that is not there may be there soon. */
static void keep(struct kb_resolver *resolver, const struct job *job)
{
	struct kept *k = &resolver->kept[resolver->next_kept++ % KB_RESOLVE_KEPT];

	if (job->answer.n == 0)
		return;
	memcpy(k->name, job->name, sizeof(k->name));
	k->answer = job->answer;
	k->until = kb_now_mono() + (int64_t)KB_RESOLVE_KEEP_MS * 1000000;
}

static void on_answer(int fd, unsigned events, void *arg)
{
	struct kb_resolver *resolver = arg;
	struct job *job;

	if (read(fd, &job, sizeof(job)) != (ssize_t)sizeof(job))
		return;
	resolver->threads--;
	TAILQ_REMOVE(&resolver->running, job, entry);
	keep(resolver, job);
	start_jobs(resolver);
	deliver(resolver, job);
}

static void on_kick(void *arg)
{
	struct kb_resolver *resolver = arg;
	struct job *job;

	while ((job = TAILQ_FIRST(&resolver->known))) {
		TAILQ_REMOVE(&resolver->known, job, entry);
		deliver(resolver, job);
	}
}

static struct job *find_job(struct jobs *jobs, const char *name)
{
	struct job *job;

	TAILQ_FOREACH(job, jobs, entry)
		if (strcmp(job->name, name) == 0)
			return job;
	return NULL;
}

static const struct kept *find_kept(const struct kb_resolver *resolver, const char *name)
{
	int64_t now = kb_now_mono();

	for (size_t i = 0; i < KB_RESOLVE_KEPT; i++)
		if (resolver->kept[i].until > now && strcmp(resolver->kept[i].name, name) == 0)
			return &resolver->kept[i];
	return NULL;
}

static struct job *make_job(struct kb_resolver *resolver, const char *name)
{
	const struct kept *kept = find_kept(resolver, name);
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->pipe = resolver->pipe[1];
	job->last = &job->waiting;
	memcpy(job->name, name, strlen(name) + 1);
	if (kept) {
		job->answer = kept->answer;
		TAILQ_INSERT_TAIL(&resolver->known, job, entry);
		(void)kb_source_arm(resolver->kick, 0, NULL);
	} else {
		TAILQ_INSERT_TAIL(&resolver->queued, job, entry);
	}
	return job;
}

int kb_resolve(struct kb_resolver *resolver, const char *name, kb_resolve_fn fn, void *arg,
	struct kb_question **ret, struct kb_err *err)
{
	struct kb_question *q;
	struct job *job;

	if (resolver->open >= KB_RESOLVE_MAX || strlen(name) >= KB_HOST_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "%d names are being resolved", KB_RESOLVE_MAX);
	q = calloc(1, sizeof(*q));
	job = find_job(&resolver->running, name);
	if (!job)
		job = find_job(&resolver->queued, name);
	if (q && !job)
		job = make_job(resolver, name);
	if (!q || !job) {
		free(q);
		return kb_err_nomem(err);
	}
	*q = (struct kb_question){.fn = fn, .arg = arg};
	*job->last = q;
	job->last = &q->next;
	resolver->open++;
	*ret = q;
	start_jobs(resolver);
	return 0;
}

void kb_resolve_cancel(struct kb_question *q)
{
	if (q)
		q->fn = NULL;
}

/* ---- The object ------------------------------------------------------------------------------ */

int kb_resolver_create(struct kb_loop *loop, struct kb_resolver **ret, struct kb_err *err)
{
	struct kb_resolver *resolver = calloc(1, sizeof(*resolver));
	int r;

	if (!resolver)
		return kb_err_nomem(err);
	TAILQ_INIT(&resolver->queued);
	TAILQ_INIT(&resolver->running);
	TAILQ_INIT(&resolver->known);
	if (kb_os_pipe(resolver->pipe, false) < 0) {
		free(resolver);
		return kb_err_sys(err, errno, "a pipe cannot be made");
	}
	r = kb_loop_io(
		loop, resolver->pipe[0], KB_IO_READ, on_answer, resolver, &resolver->io, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_kick, resolver, &resolver->kick, err);
	if (r < 0)
		kb_resolver_destroy(resolver);
	else
		*ret = resolver;
	return r;
}

static void forget_questions(struct job *job)
{
	struct kb_question *q;

	while ((q = job->waiting)) {
		job->waiting = q->next;
		free(q);
	}
}

static void forget_jobs(struct jobs *jobs)
{
	struct job *job;

	while ((job = TAILQ_FIRST(jobs))) {
		TAILQ_REMOVE(jobs, job, entry);
		forget_questions(job);
		free(job);
	}
}

void kb_resolver_destroy(struct kb_resolver *resolver)
{
	struct job *job;

	if (!resolver)
		return;
	kb_source_destroy(resolver->io);
	kb_source_destroy(resolver->kick);
	forget_jobs(&resolver->queued);
	forget_jobs(&resolver->known);
	/* The threads still have these, and an answer to write. */
	TAILQ_FOREACH(job, &resolver->running, entry)
		forget_questions(job);
	if (resolver->threads == 0) {
		kb_close(&resolver->pipe[0]);
		kb_close(&resolver->pipe[1]);
	}
	free(resolver);
}
