/* Brokers as main knows them: a session with a network has one, and does not outlive it. */
#include <stdlib.h>
#include <string.h>

#include "main.h"
#include "policy/policy.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

static int broker_message(
	struct kb_role_process *p, const uint8_t *data, size_t len, struct kb_err *err)
{
	return kb_err_set(err, KB_ERR_INVALID, "a broker has nothing to say to main");
}

static void broker_gone(struct kb_role_process *p, const struct kb_err *why)
{
	struct kb_live *live, *next;

	for (live = TAILQ_FIRST(&p->main->lives); live; live = next) {
		next = TAILQ_NEXT(live, entry);
		if (live->broker != p)
			continue;
		live->broker = NULL;
		live->complete = false;
		kb_live_event(live, KB_EV_STOP, why);
	}
}

static const struct kb_process_kind broker_kind = {
	"broker", KB_SPAWN_PDEATHSIG, broker_message, broker_gone};

/* Anything but the session's own loopback. */
static bool leaves(const struct kb_net_rule *rule)
{
	static const uint8_t loopback6[16] = {[15] = 1};
	bool v4 = rule->address_len == 4 && rule->address[0] == 127 && rule->prefix >= 8;
	bool v6 = rule->address_len == 16 && !memcmp(rule->address, loopback6, 16) &&
		  rule->prefix == 128;
	bool one = rule->prefix == rule->address_len * 8 && rule->port_lo == rule->port_hi;

	if (rule->direction == KB_NET_LISTEN || rule->action == KB_DENY || rule->action == KB_KILL)
		return false;
	return rule->host || (!v4 && !v6) || one;
}

int kb_broker_keep(struct kb_live *live, const struct kb_bundle *bundle,
	ProtobufCBinaryData encoded, struct kb_err *err)
{
	const struct kb_net_rule *rules;
	size_t n = kb_bundle_net(bundle, &rules), i = 0;

	while (i < n && !leaves(&rules[i]))
		i++;
	if (i == n)
		return 0;
	live->bundle = malloc(encoded.len + 1);
	if (!live->bundle)
		return kb_err_nomem(err);
	memcpy(live->bundle, encoded.data, encoded.len);
	live->bundle_len = encoded.len;
	return 0;
}

static int hand_secrets(struct kb_live *live, struct kb_err *err)
{
	Kb__Role__BrokerSecrets secrets = KB__ROLE__BROKER_SECRETS__INIT;
	Kb__Role__ToBroker msg = KB__ROLE__TO_BROKER__INIT;
	int r;

	if (live->secrets < 0)
		return 0;
	msg.body_case = KB__ROLE__TO_BROKER__BODY_SECRETS;
	msg.secrets = &secrets;
	r = kb_process_send(live->broker, &msg.base, live->secrets, err);
	kb_close(&live->secrets);
	return r;
}

static int introduce(struct kb_live *live, const int pair[2], struct kb_err *err)
{
	Kb__Role__ToBroker to_broker = KB__ROLE__TO_BROKER__INIT;
	Kb__Role__BrokerSetup setup = KB__ROLE__BROKER_SETUP__INIT;
	Kb__Role__LinkBroker broker = KB__ROLE__LINK_BROKER__INIT;
	Kb__Role__ToLink msg = KB__ROLE__TO_LINK__INIT;
	int r;

	setup.session = (ProtobufCBinaryData){.data = live->id, .len = sizeof(live->id)};
	setup.bundle = (ProtobufCBinaryData){.data = live->bundle, .len = live->bundle_len};
	broker.session = setup.session;
	msg.body_case = KB__ROLE__TO_LINK__BODY_BROKER;
	msg.broker = &broker;
	to_broker.body_case = KB__ROLE__TO_BROKER__BODY_SETUP;
	to_broker.setup = &setup;
	r = hand_secrets(live, err);
	if (r == 0)
		r = kb_process_send(live->broker, &to_broker.base, pair[0], err);
	return r < 0 ? r : kb_process_send(live->link, &msg.base, pair[1], err);
}

int kb_broker_start(struct kb_live *live, struct kb_err *err)
{
	int pair[2], r;

	if (!live->bundle)
		return 0;
	r = kb_process_start(live->main, &broker_kind, NULL, &live->broker, err);
	if (r == 0)
		r = kb_fd_socketpair(false, pair, err);
	if (r < 0)
		return r;
	live->broker->state = KB_PROCESS_UP;
	r = introduce(live, pair, err);
	kb_close(&pair[0]);
	kb_close(&pair[1]);
	free(live->bundle);
	live->bundle = NULL;
	return r;
}

void kb_broker_end(struct kb_live *live)
{
	free(live->bundle);
	kb_close(&live->secrets);
	if (!live->broker)
		return;
	live->broker->expected = true;
	kb_process_close(live->broker);
	live->broker = NULL;
}
