#include "supervisor/guest/relays.h"

#include <stdlib.h>

#include "supervisor/base/relay.h"

struct process_relays {
	struct process_relays *next;
	uint64_t process;
	struct kb_relay *relay[3];
	unsigned n;
};

struct connection_relay {
	struct connection_relay *next;
	uint32_t stream;
	struct kb_relay *relay;
};

void kb_relays_init(struct kb_relays *r, struct kb_channel *link, struct kb_channel *session,
	void (*flushed)(void *arg), void *arg)
{
	*r = (struct kb_relays){.link = link, .session = session, .flushed = flushed, .arg = arg};
}

/* ---- Processes ------------------------------------------------------------------------------- */

static struct process_relays *find_process(const struct kb_relays *r, uint64_t process)
{
	for (struct process_relays *p = r->processes; p; p = p->next)
		if (p->process == process)
			return p;
	return NULL;
}

static void process_destroy(struct process_relays *p)
{
	for (unsigned i = 0; i < p->n; i++)
		kb_relay_destroy(p->relay[i]);
	free(p);
}

int kb_relays_process(
	struct kb_relays *r, uint64_t process, const Kb__ProcessSpec *spec, struct kb_err *err)
{
	unsigned n = spec->tty ? 1 : 3;
	struct process_relays *p;
	int e = 0;

	if (find_process(r, process))
		return kb_err_set(err, KB_ERR_INVALID, "this process id is taken");
	if (spec->stdio == 0 || spec->stdio > UINT32_MAX - n)
		return kb_err_set(err, KB_ERR_INVALID, "a process's streams have no number");
	p = calloc(1, sizeof(*p));
	if (!p)
		return kb_err_nomem(err);
	p->process = process;
	for (; p->n < n && e == 0; p->n += e == 0)
		e = kb_relay_create(r->link, r->session, spec->stdio + p->n, r->flushed, r->arg,
			&p->relay[p->n], err);
	if (e < 0) {
		process_destroy(p);
		return e;
	}
	p->next = r->processes;
	r->processes = p;
	return 0;
}

bool kb_relays_are_flushed(const struct kb_relays *r, uint64_t process)
{
	const struct process_relays *p = find_process(r, process);

	for (unsigned i = 0; p && i < p->n; i++)
		if (!kb_relay_is_flushed(p->relay[i]))
			return false;
	return true;
}

void kb_relays_forget_process(struct kb_relays *r, uint64_t process)
{
	for (struct process_relays **at = &r->processes; *at; at = &(*at)->next) {
		struct process_relays *p = *at;

		if (p->process != process)
			continue;
		*at = p->next;
		process_destroy(p);
		return;
	}
}

/* ---- Connections ----------------------------------------------------------------------------- */

static void connection_destroy(struct connection_relay *c)
{
	kb_relay_destroy(c->relay);
	free(c);
}

static void close_connections(struct kb_relays *r, bool all)
{
	struct connection_relay **at = &r->connections;

	while (*at) {
		struct connection_relay *c = *at;

		if (!all && !kb_relay_is_done(c->relay)) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		connection_destroy(c);
	}
}

int kb_relays_connection(struct kb_relays *r, uint32_t stream, struct kb_err *err)
{
	struct connection_relay *c;
	int e;

	close_connections(r, false);
	c = calloc(1, sizeof(*c));
	if (!c)
		return kb_err_nomem(err);
	c->stream = stream;
	e = kb_relay_create(r->link, r->session, stream, r->flushed, r->arg, &c->relay, err);
	if (e < 0) {
		free(c);
		return e;
	}
	c->next = r->connections;
	r->connections = c;
	return 0;
}

void kb_relays_forget_connection(struct kb_relays *r, uint32_t stream)
{
	for (struct connection_relay **at = &r->connections; *at; at = &(*at)->next) {
		struct connection_relay *c = *at;

		if (c->stream != stream)
			continue;
		*at = c->next;
		connection_destroy(c);
		return;
	}
}

/* ---- All of them ----------------------------------------------------------------------------- */

void kb_relays_detach(struct kb_relays *r)
{
	for (struct process_relays *p = r->processes; p; p = p->next)
		for (unsigned i = 0; i < p->n; i++)
			kb_relay_detach(p->relay[i]);
	close_connections(r, true);
}

void kb_relays_abandon(struct kb_relays *r)
{
	for (struct process_relays *p = r->processes; p; p = p->next)
		for (unsigned i = 0; i < p->n; i++)
			kb_relay_abandon(p->relay[i]);
}

void kb_relays_finish(struct kb_relays *r)
{
	while (r->processes) {
		struct process_relays *p = r->processes;

		r->processes = p->next;
		process_destroy(p);
	}
	close_connections(r, true);
}
