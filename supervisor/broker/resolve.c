/* A question belongs to its thread until the thread has written its address into the pipe, then to
 * the loop. What the loop does meanwhile (cancelling, going away) it says in fields the thread does
 * not look at; the pipe's write end is closed with the process only. */
#include "resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/base/util.h"

struct kb_question {
	int pipe; /* the thread's */
	char *name;
	struct kb_address answers[KB_RESOLVE_ANSWERS];
	size_t n;
	int result;
	struct kb_resolver *resolver; /* the loop's */
	kb_resolve_fn fn;	      /* NULL: cancelled */
	void *arg;
};

struct kb_resolver {
	int pipe[2];
	struct kb_source *io;
	unsigned open;
};

static void take_answer(struct kb_question *q, const struct addrinfo *info)
{
	struct kb_address *a = &q->answers[q->n];

	if (info->ai_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)info->ai_addr;

		memcpy(a->bytes, &in->sin_addr, 4);
		a->len = 4;
		q->n++;
	} else if (info->ai_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)info->ai_addr;

		memcpy(a->bytes, &in6->sin6_addr, 16);
		a->len = 16;
		q->n++;
	}
}

static void *work(void *arg)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct kb_question *q = arg;
	struct addrinfo *list = NULL;

	q->result = getaddrinfo(q->name, NULL, &hints, &list);
	for (struct addrinfo *i = q->result == 0 ? list : NULL; i && q->n < KB_RESOLVE_ANSWERS;
		i = i->ai_next)
		take_answer(q, i);
	if (q->result == 0)
		freeaddrinfo(list);
	while (write(q->pipe, &q, sizeof(q)) < 0 && errno == EINTR)
		;
	return NULL;
}

static void on_answer(int fd, unsigned events, void *arg)
{
	struct kb_resolver *resolver = arg;
	struct kb_question *q;

	if (read(fd, &q, sizeof(q)) != (ssize_t)sizeof(q))
		return;
	resolver->open--;
	if (q->fn && q->n > 0)
		q->fn(q->answers, q->n, NULL, q->arg);
	else if (q->fn)
		q->fn(NULL, 0, q->result ? gai_strerror(q->result) : "it has no address", q->arg);
	free(q->name);
	free(q);
}

int kb_resolver_create(struct kb_loop *loop, struct kb_resolver **ret, struct kb_err *err)
{
	struct kb_resolver *resolver = calloc(1, sizeof(*resolver));
	int r;

	if (!resolver)
		return kb_err_nomem(err);
	if (pipe2(resolver->pipe, O_CLOEXEC) < 0) {
		free(resolver);
		return kb_err_sys(err, errno, "a pipe cannot be made");
	}
	r = kb_loop_io(
		loop, resolver->pipe[0], KB_IO_READ, on_answer, resolver, &resolver->io, err);
	if (r < 0)
		kb_resolver_destroy(resolver);
	else
		*ret = resolver;
	return r;
}

void kb_resolver_destroy(struct kb_resolver *resolver)
{
	if (!resolver)
		return;
	kb_source_destroy(resolver->io);
	/* A thread may still have an answer to write: then its end stays. */
	if (resolver->open == 0) {
		kb_close(&resolver->pipe[0]);
		kb_close(&resolver->pipe[1]);
	}
	free(resolver);
}

static int start(struct kb_question *q, struct kb_err *err)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attr, work, q);
	pthread_attr_destroy(&attr);
	return r ? kb_err_sys(err, r, "a thread cannot be started") : 0;
}

int kb_resolve(struct kb_resolver *resolver, const char *name, kb_resolve_fn fn, void *arg,
	struct kb_question **ret, struct kb_err *err)
{
	struct kb_question *q;
	int r;

	if (resolver->open >= KB_RESOLVE_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "%d names are being resolved", KB_RESOLVE_MAX);
	q = calloc(1, sizeof(*q));
	if (!q)
		return kb_err_nomem(err);
	*q = (struct kb_question){.pipe = resolver->pipe[1],
		.name = strdup(name),
		.resolver = resolver,
		.fn = fn,
		.arg = arg};
	r = q->name ? start(q, err) : kb_err_nomem(err);
	if (r < 0) {
		free(q->name);
		free(q);
		return r;
	}
	resolver->open++;
	*ret = q;
	return 0;
}

void kb_resolve_cancel(struct kb_question *q)
{
	if (q)
		q->fn = NULL;
}
