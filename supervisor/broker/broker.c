#include "broker.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker_private.h"
#include "proto/role.pb-c.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

/* ---- The link -------------------------------------------------------------------------------- */

void kb_broker_tell(struct kb_broker *b, enum kb_egress_kind kind, uint32_t stream)
{
	Kb__Role__BrokerEgress egress = KB__ROLE__BROKER_EGRESS__INIT;
	Kb__Role__BrokerToLink msg = KB__ROLE__BROKER_TO_LINK__INIT;
	struct kb_err err;

	egress.kind = kind;
	egress.has_stream = stream != 0;
	egress.stream = stream;
	msg.body_case = KB__ROLE__BROKER_TO_LINK__BODY_EGRESS;
	msg.egress = &egress;
	if (b->link && kb_channel_send(b->link, 0, &msg.base, -1, &err) < 0)
		kb_log_debug("the link is not told of a connection: %s", err.msg);
}

static void read_target(const Kb__Role__BrokerEgress *msg, struct kb_target *ret)
{
	*ret = (struct kb_target){.port = (uint16_t)msg->port};
	ret->address.len = (unsigned)msg->address.len;
	memcpy(ret->address.bytes, msg->address.data, msg->address.len);
	/* As the kernel would have taken it. */
	if (ret->address.len == 16 &&
		IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)ret->address.bytes)) {
		memmove(ret->address.bytes, ret->address.bytes + 12, 4);
		ret->address.len = 4;
	}
}

/* Packets that are not TCP go nowhere, whatever the policy says. */
static void report_dropped(struct kb_broker *b, const Kb__Role__BrokerEgress *msg)
{
	static const struct {
		uint32_t protocol;
		const char *text;
	} texts[] = {{IPPROTO_UDP, "UDP does not leave the session"},
		{IPPROTO_ICMP, "ICMP does not leave the session"},
		{IPPROTO_ICMPV6, "ICMP does not leave the session"}};
	struct kb_ruling ruling = {0};
	struct kb_target target;
	const char *text = "only TCP leaves the session";

	read_target(msg, &target);
	for (size_t i = 0; i < KB_ARRAY_LEN(texts); i++)
		if (texts[i].protocol == msg->protocol)
			text = texts[i].text;
	kb_decide_target(b, &target, &ruling);
	if (ruling.allowed)
		ruling = (struct kb_ruling){.errnum = ENETUNREACH,
			.rule = kb_bundle_net_default(b->bundle).rule,
			.record = KB_RECORD_SUMMARY};
	kb_report(b, &(struct kb_report){.event = KB_EVENT_CONNECT,
			     .target = &target,
			     .ruling = &ruling,
			     .text = text});
}

static void report_full(struct kb_broker *b)
{
	struct kb_ruling ruling = {
		.errnum = EAGAIN, .rule = KB_RULE_NONE, .record = KB_RECORD_SUMMARY};

	snprintf(ruling.why, sizeof(ruling.why), "%d connections at once: more of them wait",
		KB_EGRESS_FLOWS);
	kb_report(b, &(struct kb_report){.event = KB_EVENT_LIMIT, .ruling = &ruling});
}

/* Nothing more goes out; whatever was done is recorded before the answer. */
static void finish(struct kb_broker *b)
{
	struct kb_flow *f;

	TAILQ_FOREACH(f, &b->flows, entry)
		kb_flow_stop(f);
	kb_report_flush(b);
	b->finished = true;
	kb_broker_tell(b, KB_EGRESS_FINISHED, 0);
}

static int handle(struct kb_broker *b, const Kb__Role__BrokerEgress *msg, struct kb_err *err)
{
	struct kb_flow *f = msg->has_stream ? kb_flow_find(b, msg->stream) : NULL;
	struct kb_target target;

	switch (msg->kind) {
	case KB_EGRESS_TCP:
		read_target(msg, &target);
		return kb_flow_create(b, msg->stream, KB_EGRESS_TCP, &target, err);
	case KB_EGRESS_PROXY:
	case KB_EGRESS_DNS:
		return kb_flow_create(b, msg->stream, msg->kind, NULL, err);
	case KB_EGRESS_DROPPED:
		report_dropped(b, msg);
		return 0;
	case KB_EGRESS_FULL:
		report_full(b);
		return 0;
	case KB_EGRESS_FINISH:
		finish(b);
		return 0;
	case KB_EGRESS_CANCEL:
		if (f)
			kb_flow_cancelled(f);
		return 0;
	default:
		return kb_err_set(err, KB_ERR_INVALID, "the link spoke of kind %u", msg->kind);
	}
}

static int on_link_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_broker *b = arg;
	Kb__Role__LinkToBroker *msg = kb__role__link_to_broker__unpack(NULL, len, data);
	int r;

	kb_close(&fd);
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "the link sent a malformed message");
	r = b->finished ? 0 : handle(b, msg->egress, err);
	kb__role__link_to_broker__free_unpacked(msg, NULL);
	return r;
}

/* Without its session nothing is to be relayed, nor can it be recorded. */
static void drop_link(struct kb_broker *b)
{
	while (!TAILQ_EMPTY(&b->flows))
		kb_flow_destroy(TAILQ_FIRST(&b->flows));
	kb_channel_destroy(b->link);
	b->link = NULL;
}

static void on_link_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_broker *b = arg;

	if (why)
		kb_log_error("the link: %s", why->msg);
	drop_link(b);
	if (why)
		kb_loop_stop(b->loop);
}

static const struct kb_channel_ops link_ops = {on_link_message, on_link_closed};

/* ---- main ------------------------------------------------------------------------------------ */

static void find_limit(struct kb_broker *b)
{
	const struct kb_limit *limits;
	size_t n = kb_bundle_limits(b->bundle, &limits);

	b->limit_rule = KB_RULE_NONE;
	for (size_t i = 0; i < n; i++) {
		if (limits[i].kind != KB_LIMIT_EGRESS || limits[i].value == 0 ||
			(b->limit && limits[i].value >= b->limit))
			continue;
		b->limit = limits[i].value;
		b->limit_rule = limits[i].rule;
	}
}

/* Before the setup: what it may put into requests. */
static int take_secrets(struct kb_broker *b, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;

	if (fd < 0 || b->bundle || b->vault)
		return kb_err_set(err, KB_ERR_INVALID, "main's secrets are malformed");
	return kb_vault_open(guard, &b->vault, err);
}

static int set_up(struct kb_broker *b, const Kb__Role__BrokerSetup *msg, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	int r;

	if (fd < 0 || b->bundle)
		return kb_err_set(err, KB_ERR_INVALID, "main's setup is malformed");
	r = kb_bundle_parse(msg->bundle.data, msg->bundle.len, &b->bundle, err);
	if (r == 0)
		r = kb_authority_create(kb_vault_authority_key(b->vault),
			kb_vault_authority_cert(b->vault), &b->authority, err);
	if (r == 0)
		r = kb_grants_prepare(b, err);
	if (r < 0)
		return r;
	find_limit(b);
	return kb_channel_create(b->loop, kb_steal_fd(&guard), &link_ops, b, &b->link, err);
}

static int on_main_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	Kb__Role__ToBroker *msg = kb__role__to_broker__unpack(NULL, len, data);
	int r;

	if (msg && msg->body_case == KB__ROLE__TO_BROKER__BODY_SETUP) {
		r = set_up(arg, msg->setup, fd, err);
	} else if (msg && msg->body_case == KB__ROLE__TO_BROKER__BODY_SECRETS) {
		r = take_secrets(arg, fd, err);
	} else {
		kb_close(&fd);
		r = kb_err_set(err, KB_ERR_INVALID, "main's message is malformed");
	}
	kb__role__to_broker__free_unpacked(msg, NULL);
	return r;
}

static void on_main_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_broker *b = arg;

	if (why)
		kb_log_error("main: %s", why->msg);
	kb_channel_destroy(b->main);
	b->main = NULL;
	kb_loop_stop(b->loop);
}

static const struct kb_channel_ops main_ops = {on_main_message, on_main_closed};

/* ---- Life ------------------------------------------------------------------------------------ */

static void on_age(void *arg)
{
	kb_report_flush(arg);
}

static void tear_down(struct kb_broker *b)
{
	drop_link(b);
	kb_resolver_destroy(b->resolver);
	kb_channel_destroy(b->main);
	kb_source_destroy(b->age);
	kb_loop_destroy(b->loop);
	kb_block_finish(&b->block);
	kb_names_finish(&b->names);
	kb_authority_destroy(b->authority);
	kb_vault_destroy(b->vault);
	kb_bundle_destroy(b->bundle);
}

int kb_broker_role(int fd)
{
	struct kb_broker b = {0};
	struct kb_err err;
	int r;

	signal(SIGPIPE, SIG_IGN);
	kb_vault_harden();
	TAILQ_INIT(&b.flows);
	kb_block_init(&b.block);
	r = kb_loop_create(&b.loop, &err);
	if (r == 0)
		r = kb_loop_timer(b.loop, on_age, &b, &b.age, &err);
	if (r == 0)
		r = kb_resolver_create(b.loop, &b.resolver, &err);
	if (r == 0)
		r = kb_channel_create(b.loop, fd, &main_ops, &b, &b.main, &err);
	if (r == 0)
		r = kb_loop_run(b.loop, &err);
	if (r < 0)
		kb_log_error("%s", err.msg);
	tear_down(&b);
	return r < 0;
}
