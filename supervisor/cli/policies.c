#include "policies.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/str.h"

#define DIAGS_TEXT_MAX (1u << 20)

extern char **environ;

int kb_policies_init(struct kb_policies *policies, struct kb_err *err)
{
	int r;

	*policies = (struct kb_policies){0};
	r = kb_dirs_find(&policies->dirs, err);
	if (r < 0)
		return r;
	if (!getcwd(policies->workspace, sizeof(policies->workspace)))
		return kb_err_sys(err, errno, "the current directory cannot be found");
	policies->search[0] = policies->dirs.config;
	policies->search[1] = NULL;
	policies->options = (struct kb_policy_options){
		.search = policies->search,
		.home = policies->dirs.home,
		.workspace = policies->workspace,
		.user = getenv("USER"),
		.env = (const char *const *)environ,
	};
	return 0;
}

void kb_policies_look_up_hosts(struct kb_policies *policies)
{
	kb_registries_init(&policies->registries, &policies->dirs);
	policies->options.find_hosts = kb_registries_find;
	policies->options.find_hosts_arg = &policies->registries;
}

void kb_policies_finish(struct kb_policies *policies)
{
	kb_registries_finish(&policies->registries);
}

static void add(struct kb_policy_list *list, char *name, char *file)
{
	list->entries = realloc(list->entries, (list->len + 1) * sizeof(*list->entries));
	if (!list->entries)
		abort();
	list->entries[list->len++] = (struct kb_policy_entry){.name = name, .file = file};
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_policy(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name), suffix = strlen(".policy");

	return entry->d_name[0] != '.' && len > suffix &&
	       !strcmp(entry->d_name + len - suffix, ".policy");
}

int kb_policy_list_read(
	struct kb_policy_list *list, const struct kb_policies *policies, struct kb_err *err)
{
	const char *dir = policies->dirs.config;
	struct dirent **found;
	int n;

	*list = (struct kb_policy_list){0};
	for (const char *const *preset = kb_preset_names(); *preset; preset++)
		add(list, kb_xstrdup(*preset), NULL);
	n = scandir(dir, &found, is_policy, by_name);
	if (n < 0 && errno != ENOENT)
		return kb_err_sys(err, errno, "%s cannot be listed", dir);
	for (int i = 0; i < n; i++) {
		const char *file = found[i]->d_name;

		add(list, kb_xprintf("%.*s", (int)(strlen(file) - strlen(".policy")), file),
			kb_xprintf("%s/%s", dir, file));
		free(found[i]);
	}
	if (n >= 0)
		free(found);
	return 0;
}

void kb_policy_list_finish(struct kb_policy_list *list)
{
	for (size_t i = 0; i < list->len; i++) {
		free(list->entries[i].name);
		free(list->entries[i].file);
	}
	free(list->entries);
	*list = (struct kb_policy_list){0};
}

bool kb_policy_is_file(const char *name)
{
	size_t len = strlen(name), suffix = strlen(".policy");

	return strchr(name, '/') || (len > suffix && !strcmp(name + len - suffix, ".policy"));
}

const struct kb_policy_entry *kb_policy_list_find(
	const struct kb_policy_list *list, const char *name)
{
	for (size_t i = list->len; i-- > 0;)
		if (!strcmp(list->entries[i].name, name))
			return &list->entries[i];
	return NULL;
}

int kb_policy_unknown(const struct kb_policy_list *list, const char *name, struct kb_err *err)
{
	const char **names = kb_xcalloc(list->len + 1, sizeof(*names));
	const char *near;

	for (size_t i = 0; i < list->len; i++)
		names[i] = list->entries[i].name;
	near = kb_closest(name, names, list->len);
	kb_err_set(err, KB_ERR_NOTFOUND, "there is no policy '%s'", name);
	if (near)
		kb_err_hint(err, "did you mean: %s", near);
	else
		kb_err_hint(err,
			"those there are: kbsup policy list; a file is named with a '/' or "
			"as NAME.policy");
	free(names);
	return -KB_ERR_NOTFOUND;
}

/* A name that means nothing gets "did you mean"; files are the compiler's to report. */
static int check_name(const struct kb_policies *policies, const char *name, struct kb_err *err)
{
	struct kb_policy_list list KB_POLICY_LIST_CLEANUP = {0};
	int r;

	if (kb_policy_is_file(name))
		return 0;
	r = kb_policy_list_read(&list, policies, err);
	if (r == 0 && !kb_policy_list_find(&list, name))
		r = kb_policy_unknown(&list, name, err);
	return r;
}

int kb_policies_mistakes(const struct kb_diags *diags, const char *name, struct kb_err *err)
{
	struct kb_buf text KB_BUF_CLEANUP;
	int r;

	kb_buf_init(&text, DIAGS_TEXT_MAX);
	r = kb_diags_render(diags, false, &text, err);
	if (r < 0)
		return r;
	fwrite(kb_buf_data(&text), 1, kb_buf_len(&text), stderr);
	kb_err_set(err, KB_ERR_INVALID, "the policy %s has mistakes", name);
	return kb_err_hint(
		err, "correct the lines named above; kbsup policy check %s tries again", name);
}

/* Loaded, and lowered where out is not NULL. */
static int read_policy(const struct kb_policies *policies, const char *name_or_file,
	struct kb_policy **ret, struct kb_buf *out, struct kb_err *err)
{
	struct kb_diags *diags KB_DIAGS_CLEANUP = kb_diags_create();
	struct kb_policy *policy KB_POLICY_CLEANUP = NULL;
	int r;

	if (!diags)
		return kb_err_nomem(err);
	r = check_name(policies, name_or_file, err);
	if (r == 0)
		r = kb_policy_load(name_or_file, &policies->options, &policy, diags, err);
	if (r == 0 && out)
		r = kb_policy_lower(policy, &policies->options, out, diags, err);
	if (kb_diags_errors(diags))
		return kb_policies_mistakes(diags, name_or_file, err);
	if (r == 0)
		*ret = KB_STEAL(policy);
	return r;
}

int kb_policies_load(const struct kb_policies *policies, const char *name_or_file,
	struct kb_policy **ret, struct kb_err *err)
{
	return read_policy(policies, name_or_file, ret, NULL, err);
}

int kb_policies_compile(const struct kb_policies *policies, const char *name_or_file,
	struct kb_policy **ret, struct kb_buf *out, struct kb_err *err)
{
	return read_policy(policies, name_or_file, ret, out, err);
}

int kb_policies_bundle(const struct kb_policies *policies, const char *name_or_file,
	struct kb_bundle **ret, struct kb_err *err)
{
	struct kb_policy *policy KB_POLICY_CLEANUP = NULL;
	struct kb_buf encoded KB_BUF_CLEANUP;
	int r;

	kb_buf_init(&encoded, KB_BUNDLE_MAX);
	r = kb_policies_compile(policies, name_or_file, &policy, &encoded, err);
	if (r < 0)
		return r;
	return kb_bundle_parse(kb_buf_data(&encoded), kb_buf_len(&encoded), ret, err);
}

int kb_policies_arch(const struct kb_args *args, uint32_t *ret, struct kb_err *err)
{
	const char *name = kb_args_value(args, "arch");

	*ret = name ? kb_arch_parse(name) : kb_arch_native();
	if (*ret)
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "'%s' is not an architecture kbsup knows",
		name ? name : "this machine's");
	return kb_err_hint(err, "it is one of: x86_64, aarch64");
}
