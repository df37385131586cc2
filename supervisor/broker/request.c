/* The heads of requests on their way to the server. */
#include <stdio.h>
#include <string.h>

#include "broker_private.h"
#include "supervisor/base/util.h"

#define TEXT_MAX  512
#define PATH_SEEN 480
#define NAMES_MAX 256

static void report(struct kb_flow *f, const struct kb_http_head *h, const struct kb_edited *edited)
{
	const struct kb_slice *target = &h->target;
	const char *query = memchr(target->at, '?', target->len);
	char text[TEXT_MAX], names[NAMES_MAX];

	/* As the session said it; what follows the "?" may be secret, and is long. */
	snprintf(text, sizeof(text), "%.*s %.*s", (int)h->method.len, h->method.at,
		(int)KB_MIN(query ? (size_t)(query - target->at) : target->len, (size_t)PATH_SEEN),
		target->at);
	kb_grants_names(f->broker, edited->used, names, sizeof(names));
	kb_report(f->broker, &(struct kb_report){.event = KB_EVENT_REQUEST,
				     .target = &f->target,
				     .ruling = &f->ruling,
				     .secrets = edited->used ? names : NULL,
				     .text = text});
}

static int refuse_foreign(struct kb_flow *f, int which, char why[KB_WHY_MAX])
{
	const struct kb_secret *secrets;

	(void)kb_bundle_secrets(f->broker->bundle, &secrets);
	snprintf(why, KB_WHY_MAX,
		"its request carries the placeholder of the secret %s, which is not for this "
		"server",
		secrets[which].name);
	return 1;
}

/* From now on what the server says is looked at: the value must not come back. */
static int guard(struct kb_flow *f, uint64_t granted, struct kb_err *err)
{
	if (f->mask)
		return 0;
	f->mask = calloc(1, sizeof(*f->mask));
	if (!f->mask)
		return kb_err_nomem(err);
	kb_mask_init(f->mask);
	kb_grants_mask(f->broker, granted, f->mask);
	return 0;
}

/* The Host of a request that came in plain HTTP for a port that speaks TLS. */
static const char *host_in_tls(const struct kb_flow *f, char text[KB_TARGET_TEXT])
{
	kb_target_text(&f->target, text);
	if (f->target.port == 443)
		*strrchr(text, ':') = '\0';
	return text;
}

int kb_flow_request(struct kb_flow *f, const uint8_t *head, const struct kb_http_head *parsed,
	char why[KB_WHY_MAX], struct kb_err *err)
{
	bool raised = !f->inner && f->grants.over_tls, secure = f->outer || raised;
	uint64_t granted = secure ? f->grants.over_tls : f->grants.in_clear;
	char host[KB_TARGET_TEXT];
	struct kb_edit edit = {.secrets = f->broker->secrets,
		.n = f->broker->n_secrets,
		.granted = granted,
		.host = raised ? host_in_tls(f, host) : NULL,
		.drop_upgrade = f->inspect.drop_upgrade};
	struct kb_edited edited = {.foreign = -1};
	int r;

	if (granted && kb_slice_is(parsed->method, "TRACE")) {
		snprintf(why, KB_WHY_MAX, "TRACE would return the secret that is put in");
		return 1;
	}
	if (edit.n == 0 && !edit.drop_upgrade)
		r = kb_buf_append(&f->out, head, parsed->len, err);
	else
		r = kb_edit_head(&edit, head, parsed, &f->out, &edited, err);
	if (r == 0 && edited.foreign >= 0)
		return refuse_foreign(f, edited.foreign, why);
	if (r == 0 && granted)
		r = guard(f, granted, err);
	if (r < 0)
		return r;
	report(f, parsed, &edited);
	f->inspect.asked = true;
	if (raised && !f->outer)
		kb_secure_begin(f, false);
	return 0;
}
