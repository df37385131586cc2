/* What main tells about a session: to the link (StartSession), to the store (SessionMeta), to
 * clients (Session). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "main.h"
#include "policy/policy.h"
#include "proto/link.pb-c.h"
#include "proto/record.pb-c.h"
#include "supervisor/base/util.h"

#define ENV_SESSION "KBSUP_SESSION="

static ProtobufCBinaryData bytes_of(const char *text)
{
	return (ProtobufCBinaryData){.data = (uint8_t *)text, .len = text ? strlen(text) : 0};
}

static int pack(const ProtobufCMessage *msg, uint8_t **ret, size_t *ret_len, struct kb_err *err)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	uint8_t *data;

	if (len > KB_FRAME_MAX - 256) /* room for the message around it */
		return kb_err_set(err, KB_ERR_LIMIT,
			"command, environment and policy together have %zu bytes, more than %u",
			len, KB_FRAME_MAX - 256);
	data = malloc(len + 1);
	if (!data)
		return kb_err_nomem(err);
	*ret_len = protobuf_c_message_pack(msg, data);
	*ret = data;
	return 0;
}

/* ---- Environment ----------------------------------------------------------------------------- */

static bool holds(ProtobufCBinaryData bytes, int byte)
{
	return bytes.len > 0 && memchr(bytes.data, byte, bytes.len);
}

static int check_process(const Kb__Control__Process *p, struct kb_err *err)
{
	for (size_t i = 0; i < p->n_argv; i++)
		if (holds(p->argv[i], 0))
			return kb_err_set(err, KB_ERR_INVALID, "argument %zu holds a NUL", i);
	for (size_t i = 0; i < p->n_env; i++)
		if (holds(p->env[i], 0) || !holds(p->env[i], '='))
			return kb_err_set(err, KB_ERR_INVALID, "variable %zu is not NAME=VALUE", i);
	return 0;
}

static size_t count(char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

static size_t name_len(const char *entry)
{
	return (size_t)(strchr(entry, '=') - entry) + 1;
}

/* Set one variable in a NULL-terminated list that has room for it. */
static int put_env(char **list, const void *data, size_t len)
{
	char *entry = strndup(data, len);
	size_t i = 0;

	if (!entry)
		return -KB_ERR_NOMEM;
	while (list[i] && strncmp(list[i], entry, name_len(entry)) != 0)
		i++;
	free(list[i]);
	list[i] = entry;
	return 0;
}

static void free_env(char **list)
{
	for (char **e = list; e && *e; e++)
		free(*e);
	free(list);
}

/* base (may be NULL), changed by more, and our own word on top: a fresh list. */
static int merge_env(char *const *base, const ProtobufCBinaryData *more, size_t n_more,
	const char *session, char ***ret, struct kb_err *err)
{
	size_t n_base = count(base);
	char **list = calloc(n_base + n_more + 2, sizeof(char *));
	char own[sizeof(ENV_SESSION) + KB_NAME_MAX];
	int r = list ? 0 : -KB_ERR_NOMEM;

	for (size_t i = 0; r == 0 && i < n_base; i++)
		r = put_env(list, base[i], strlen(base[i]));
	for (size_t i = 0; r == 0 && i < n_more; i++)
		r = put_env(list, more[i].data, more[i].len);
	snprintf(own, sizeof(own), "%s%s", ENV_SESSION, session);
	if (r == 0)
		r = put_env(list, own, strlen(own));
	if (r < 0) {
		free_env(list);
		return kb_err_nomem(err);
	}
	*ret = list;
	return 0;
}

/* ---- Processes ------------------------------------------------------------------------------- */

struct spec {
	Kb__ProcessSpec proto;
	Kb__Winsize size;
};

/* Borrows env and from; free(proto.env) after. */
static int fill_spec(
	struct spec *s, const Kb__Control__Process *from, char *const *env, struct kb_err *err)
{
	size_t n = count(env);
	ProtobufCBinaryData *refs = calloc(n + 1, sizeof(*refs));

	if (!refs)
		return kb_err_nomem(err);
	kb__process_spec__init(&s->proto);
	for (size_t i = 0; i < n; i++)
		refs[i] = bytes_of(env[i]);
	s->proto.env = refs;
	s->proto.n_env = n;
	s->proto.argv = from->argv;
	s->proto.n_argv = from->n_argv;
	s->proto.has_cwd = from->has_cwd;
	s->proto.cwd = from->cwd;
	s->proto.has_tty = 1;
	s->proto.tty = from->tty;
	if (from->size) {
		kb__winsize__init(&s->size);
		s->size.rows = from->size->rows;
		s->size.cols = from->size->cols;
		s->proto.size = &s->size;
	}
	return 0;
}

int kb_live_make_process(struct kb_live *live, const Kb__Control__Process *from, uint8_t **ret,
	size_t *ret_len, struct kb_err *err)
{
	struct spec spec;
	char **env;
	int r = check_process(from, err);

	if (r == 0 && from->n_argv == 0)
		r = kb_err_set(err, KB_ERR_USAGE, "there is no command to run");
	if (r == 0)
		r = merge_env(live->env, from->env, from->n_env, live->name, &env, err);
	if (r < 0)
		return r;
	r = fill_spec(&spec, from, env, err);
	if (r == 0) {
		r = pack(&spec.proto.base, ret, ret_len, err);
		free(spec.proto.env);
	}
	free_env(env);
	return r;
}

/* ---- Launch ---------------------------------------------------------------------------------- */

static int make_start(struct kb_live *live, const Kb__Control__RunRequest *run, struct kb_err *err)
{
	Kb__StartSession start = KB__START_SESSION__INIT;
	struct spec spec;
	int r = fill_spec(&spec, run->process, live->env, err);

	if (r < 0)
		return r;
	start.session = (ProtobufCBinaryData){.data = live->id, .len = sizeof(live->id)};
	start.name = live->name;
	start.bundle = run->bundle;
	start.workspace = run->workspace;
	start.process = &spec.proto;
	start.lane = run->lane;
	start.runtime = run->runtime;
	start.has_home = 1;
	start.home = run->home;
	start.user = run->user;
	start.has_rootfs = run->has_rootfs;
	start.rootfs = run->rootfs;
	start.agent = run->agent;
	start.has_context = run->has_context;
	start.context = run->context;
	start.has_trust = run->has_trust;
	start.trust = run->trust;
	r = pack(&start.base, &live->start, &live->start_len, err);
	free(spec.proto.env);
	return r;
}

/* The bundle's rules as the store keeps them. */
static int fill_rules(const struct kb_bundle *bundle, Kb__SessionMeta *meta, Kb__RuleInfo **ret,
	struct kb_err *err)
{
	const struct kb_rule *rules;
	size_t n = kb_bundle_rules(bundle, &rules);
	Kb__RuleInfo *list = calloc(n + 1, sizeof(*list));
	Kb__RuleInfo **refs = calloc(n + 1, sizeof(*refs));

	if (!list || !refs) {
		free(list);
		free(refs);
		return kb_err_nomem(err);
	}
	for (size_t i = 0; i < n; i++) {
		kb__rule_info__init(&list[i]);
		list[i].id = (char *)rules[i].id;
		list[i].file = (char *)rules[i].file;
		list[i].line = rules[i].line;
		list[i].text = (char *)rules[i].text;
		list[i].reason = (char *)rules[i].reason;
		refs[i] = &list[i];
	}
	meta->rules = refs;
	meta->n_rules = n;
	*ret = list;
	return 0;
}

static int make_meta(struct kb_live *live, const Kb__Control__RunRequest *run,
	const struct kb_bundle *bundle, struct kb_err *err)
{
	Kb__SessionMeta meta = KB__SESSION_META__INIT;
	Kb__RuleInfo *rules = NULL;
	int r = fill_rules(bundle, &meta, &rules, err);

	if (r < 0)
		return r;
	meta.id = (ProtobufCBinaryData){.data = live->id, .len = sizeof(live->id)};
	meta.name = live->name;
	meta.agent = live->agent;
	meta.machine = live->place->name;
	meta.started = live->started;
	meta.user = live->user;
	meta.has_workspace = 1;
	meta.workspace = run->workspace;
	meta.argv = run->process->argv;
	meta.n_argv = run->process->n_argv;
	meta.policy = run->policy;
	meta.policy_files = run->policy_files;
	meta.n_policy_files = run->n_policy_files;
	meta.lane = run->lane;
	/* The first session may come before its machine has said what it is; `local` is this one.
	 */
	meta.has_arch = 1;
	meta.arch = live->place->facts.arch ? live->place->facts.arch : kb_arch_native();
	meta.has_bundle = 1;
	meta.bundle = run->bundle;
	r = pack(&meta.base, &live->meta, &live->meta_len, err);
	free(meta.rules);
	free(rules);
	return r;
}

int kb_live_make_messages(
	struct kb_live *live, const Kb__Control__RunRequest *run, struct kb_err *err)
{
	struct kb_bundle *bundle;
	int r = check_process(run->process, err);

	if (r == 0)
		r = merge_env(
			NULL, run->process->env, run->process->n_env, live->name, &live->env, err);
	if (r < 0)
		return r;
	r = kb_bundle_parse(run->bundle.data, run->bundle.len, &bundle, err);
	if (r < 0)
		return kb_err_prefix(err, "the compiled policy");
	r = make_start(live, run, err);
	if (r == 0)
		r = make_meta(live, run, bundle, err);
	if (r == 0)
		r = kb_broker_keep(live, bundle, run->bundle, err);
	if (r == 0)
		live->policy = KB_STEAL(bundle);
	kb_bundle_destroy(bundle);
	return r;
}

/* ---- For clients ----------------------------------------------------------------------------- */

static void describe_ports(struct kb_live *live, Kb__Control__Session *ret)
{
	for (size_t i = 0; i < live->ports.n; i++) {
		live->shown_port[i] = &live->shown_ports[i];
		kb__control__published_port__init(live->shown_port[i]);
		live->shown_port[i]->port = live->ports.list[i].port;
		live->shown_port[i]->host_port = live->ports.list[i].host_port;
	}
	ret->ports = live->shown_port;
	ret->n_ports = live->ports.n;
}

void kb_live_describe(struct kb_live *live, Kb__Control__Session *ret)
{
	kb__control__session__init(ret);
	ret->id = live->id_text;
	ret->name = live->name;
	ret->agent = live->agent;
	ret->machine = live->place->name;
	ret->state = (char *)kb_live_state_name(live->state);
	ret->started = live->started;
	ret->records = live->records;
	ret->denials = live->denials;
	ret->lost = live->lost;
	ret->has_workspace = 1;
	ret->workspace = live->workspace;
	ret->user = live->user;
	ret->has_attached = 1;
	ret->attached = live->attached;
	ret->has_questions = live->n_questions > 0;
	ret->questions = (uint32_t)live->n_questions;
	ret->reason = live->reason;
	describe_ports(live, ret);
	if (live->state != KB_LIVE_ENDED)
		return;
	ret->has_ended = ret->has_exit_code = ret->has_complete = 1;
	ret->ended = live->ended;
	ret->exit_code = live->exit_code;
	ret->has_signal = live->signal != 0;
	ret->signal = live->signal;
	ret->complete = live->complete;
	ret->has_commands = 1;
	ret->commands = live->commands;
}
