#include "settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define TEXT_MAX (64 * 1024)

static bool is_among(const char *name, const char *const names[], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

/* The names there are, from the table of commands. */
static size_t collect_names(const char *ret[KB_SETTINGS_MAX])
{
	const struct kb_option *option;
	size_t n = 0;

	for (const struct kb_command *const *c = kb_commands; *c; c++)
		for (size_t i = 0; (option = kb_command_option(*c, i)); i++)
			if (option->setting && n < KB_SETTINGS_MAX &&
				!is_among(option->setting, ret, n))
				ret[n++] = option->setting;
	return n;
}

static int wrong(const struct kb_settings *s, unsigned line, struct kb_err *err)
{
	return kb_err_prefix(err, "%s:%u", s->path, line);
}

static char *trimmed(char *text)
{
	size_t len;

	text += strspn(text, " \t\r");
	for (len = strlen(text); len && strchr(" \t\r", text[len - 1]); len--)
		;
	text[len] = '\0';
	return text;
}

static int check_name(const struct kb_settings *s, const char *name, struct kb_err *err)
{
	const char *known[KB_SETTINGS_MAX], *near;
	size_t n = collect_names(known);

	if (!is_among(name, known, n)) {
		near = kb_closest(name, known, n);
		kb_err_set(err, KB_ERR_INVALID, "there is no setting '%s'", name);
		return near ? kb_err_hint(err, "did you mean: %s", near)
			    : kb_err_hint(err, "they are listed by: man kbsup");
	}
	if (kb_settings_value(s, name)) {
		kb_err_set(err, KB_ERR_INVALID, "%s is set a second time", name);
		return kb_err_hint(err, "set it once");
	}
	return 0;
}

static int read_line(struct kb_settings *s, char *text, unsigned line, struct kb_err *err)
{
	char *equals, *name;
	int r;

	text[strcspn(text, "#")] = '\0';
	name = trimmed(text);
	if (!*name)
		return 0;
	equals = strchr(name, '=');
	if (!equals || equals == name || !*trimmed(equals + 1)) {
		kb_err_set(err, KB_ERR_INVALID, "a setting is missing its %s",
			equals == name ? "name" : "value");
		return kb_err_hint(err, "a line is: NAME = VALUE");
	}
	*equals = '\0';
	name = trimmed(name);
	r = check_name(s, name, err);
	if (r == 0)
		s->items[s->n++] = (struct kb_setting){name, trimmed(equals + 1), line};
	return r;
}

int kb_settings_load(struct kb_settings *settings, const struct kb_dirs *dirs, struct kb_err *err)
{
	unsigned line = 0;
	char *text, *next;
	int r;

	*settings = (struct kb_settings){0};
	kb_buf_init(&settings->text, TEXT_MAX);
	snprintf(settings->path, sizeof(settings->path), "%s/" KB_SETTINGS_FILE, dirs->config);
	if (access(settings->path, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = kb_file_read(settings->path, &settings->text, err);
	if (r < 0 || !kb_buf_len(&settings->text))
		return r;
	if (memchr(kb_buf_data(&settings->text), 0, kb_buf_len(&settings->text))) {
		kb_err_set(err, KB_ERR_INVALID, "%s is not a text file", settings->path);
		return kb_err_hint(err, "write one 'NAME = VALUE' a line, or remove it");
	}
	r = kb_buf_append(&settings->text, "", 1, err);
	for (text = (char *)kb_buf_data(&settings->text); r == 0 && text; text = next) {
		next = strchr(text, '\n');
		if (next)
			*next++ = '\0';
		r = read_line(settings, text, ++line, err);
	}
	return r < 0 ? wrong(settings, line, err) : 0;
}

void kb_settings_finish(struct kb_settings *settings)
{
	kb_buf_finish(&settings->text);
	settings->n = 0;
}

static const struct kb_setting *find(const struct kb_settings *settings, const char *name)
{
	for (size_t i = 0; i < settings->n; i++)
		if (!strcmp(settings->items[i].name, name))
			return &settings->items[i];
	return NULL;
}

const char *kb_settings_value(const struct kb_settings *settings, const char *name)
{
	const struct kb_setting *setting = find(settings, name);

	return setting ? setting->value : NULL;
}

static bool is_open(const struct kb_args *args, const struct kb_option *option)
{
	const char *variable = option->variable ? getenv(option->variable) : NULL;

	return option->setting && !kb_args_has(args, option->name) && !(variable && *variable) &&
	       !(option->unless && kb_args_has(args, option->unless));
}

int kb_settings_apply(struct kb_settings *settings, struct kb_args *args, struct kb_err *err)
{
	const struct kb_option *option;
	const struct kb_setting *setting;
	struct kb_dirs dirs;
	bool loaded = false;
	int r = 0;

	for (size_t i = 0; r == 0 && (option = kb_command_option(args->command, i)); i++) {
		if (!is_open(args, option))
			continue;
		if (!loaded)
			r = kb_dirs_find(&dirs, err);
		if (r == 0 && !loaded)
			r = kb_settings_load(settings, &dirs, err);
		loaded = true;
		setting = r == 0 ? find(settings, option->setting) : NULL;
		if (setting && (r = kb_args_default(args, option, setting->value, err)) < 0)
			return wrong(settings, setting->line, err);
	}
	return r;
}
