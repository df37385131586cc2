/* The session's resolver. A name that the policy lets be looked up is asked for where the host
 * asks; if it exists, the session gets a made-up address for it. No other name leaves the host, and
 * neither does any question but for addresses. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker_private.h"
#include "supervisor/base/util.h"

struct kb_lookup {
	struct kb_lookup *next;
	struct kb_flow *flow; /* NULL: it is gone */
	struct kb_dns_query query;
	struct kb_ruling ruling;
};

static void send_answer(struct kb_flow *f, const struct kb_dns_query *q, unsigned code)
{
	uint8_t msg[2 + KB_DNS_REPLY], address[16];
	size_t len = q->type == KB_DNS_A ? 4 : 16;
	bool wanted = code == KB_DNS_OK && (q->type == KB_DNS_A || q->type == KB_DNS_AAAA) &&
		      q->class_ == 1;

	if (wanted && kb_names_address(&f->broker->names, q->name, len, address, NULL) < 0) {
		wanted = false;
		code = KB_DNS_FAIL;
	}
	len = kb_dns_answer(q, code, wanted ? address : NULL, len, msg + 2);
	msg[0] = (uint8_t)(len >> 8);
	msg[1] = (uint8_t)len;
	kb_flow_reply(f, msg, len + 2);
}

static void report(struct kb_broker *b, const struct kb_dns_query *q,
	const struct kb_ruling *ruling, int errnum, const char *text)
{
	struct kb_target target = {.port = 0};

	snprintf(target.name, sizeof(target.name), "%s", q->name);
	kb_report(b, &(struct kb_report){.event = KB_EVENT_RESOLVE,
			     .target = &target,
			     .ruling = ruling,
			     .errnum = errnum,
			     .text = text});
}

static void unlink_lookup(struct kb_flow *f, struct kb_lookup *l)
{
	struct kb_lookup **at = &f->lookups;

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
}

void kb_dns_forget(struct kb_flow *f)
{
	for (struct kb_lookup *l = f->lookups; l; l = l->next)
		l->flow = NULL;
	f->lookups = NULL;
}

static void on_resolved(const struct kb_address *addresses, size_t n, const char *why, void *arg)
{
	struct kb_lookup *l = arg;
	struct kb_flow *f = l->flow;

	if (f) {
		unlink_lookup(f, l);
		report(f->broker, &l->query, &l->ruling, n ? 0 : ENOENT, why);
		send_answer(f, &l->query, n ? KB_DNS_OK : KB_DNS_NONE);
		kb_flow_settle(f);
	}
	free(l);
}

static bool is_reverse(const char *name)
{
	size_t len = strlen(name);

	return len > 5 && strcmp(name + len - 5, ".arpa") == 0;
}

static void ask(struct kb_flow *f, const struct kb_dns_query *q, const struct kb_ruling *ruling)
{
	struct kb_lookup *l = calloc(1, sizeof(*l));
	struct kb_question *question;

	if (l) {
		*l = (struct kb_lookup){
			.flow = f, .next = f->lookups, .query = *q, .ruling = *ruling};
		if (kb_resolve(f->broker->resolver, q->name, on_resolved, l, &question, NULL) ==
			0) {
			f->lookups = l;
			return;
		}
		free(l);
	}
	report(f->broker, q, ruling, EAGAIN, "too many names are being resolved");
	send_answer(f, q, KB_DNS_FAIL);
}

static void handle(struct kb_flow *f, const uint8_t *msg, size_t len)
{
	struct kb_dns_query q;
	struct kb_ruling ruling;

	if (!kb_dns_parse(msg, len, &q))
		return;
	/* What an address is called is nobody's business; programs ask in passing. */
	if (is_reverse(q.name)) {
		send_answer(f, &q, KB_DNS_NONE);
		return;
	}
	kb_decide_name(f->broker, q.name, &ruling);
	if (!ruling.allowed) {
		report(f->broker, &q, &ruling, 0, NULL);
		send_answer(f, &q, KB_DNS_NONE);
	} else if (q.class_ != 1 || (q.type != KB_DNS_A && q.type != KB_DNS_AAAA)) {
		report(f->broker, &q, &ruling, ENODATA, "only addresses are looked up");
		send_answer(f, &q, KB_DNS_OK);
	} else {
		ask(f, &q, &ruling);
	}
}

void kb_dns_feed(struct kb_flow *f)
{
	while (kb_buf_len(&f->in) >= 2) {
		const uint8_t *p = kb_buf_data(&f->in);
		size_t len = (size_t)p[0] << 8 | p[1];

		if (kb_buf_len(&f->in) < len + 2)
			return;
		handle(f, p + 2, len);
		kb_flow_take(f, len + 2);
	}
}
