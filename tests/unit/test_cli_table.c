/* The command table holds together, and what is written about it elsewhere (man pages, completions)
 * says the same. usage: test_cli_table DIRECTORY-OF-MAN-PAGES */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/cli/cli.h"
#include "supervisor/cli/completion.h"
#include "supervisor/cli/help.h"

#define PAGE_MAX    (1u << 20)
#define OPTIONS_MAX 32 /* as the parser's "did you mean" allows */
#define SUMMARY_MAX 72

static const char *man_dir;

/* ---- The table ------------------------------------------------------------------------------- */

static void check_option(const struct kb_command *command, const struct kb_option *option)
{
	char end = option->help[strlen(option->help) - 1];

	if (option->kind == KB_KIND_WORD)
		assert_non_null(option->words);
	if (end == '.' || islower((unsigned char)option->help[0]))
		fail_msg("%s --%s: the help begins with a capital and ends without a full stop",
			command->name, option->name);
	for (size_t i = 0; i < strlen(option->name); i++)
		assert_true(islower((unsigned char)option->name[i]) || option->name[i] == '-');
}

static void check_options(const struct kb_command *command)
{
	const struct kb_option *option, *other;

	for (size_t i = 0; (option = kb_command_option(command, i)); i++) {
		assert_true(i < OPTIONS_MAX);
		check_option(command, option);
		for (size_t j = 0; j < i; j++) {
			other = kb_command_option(command, j);
			if (!strcmp(option->name, other->name) ||
				(option->letter && option->letter == other->letter))
				fail_msg("%s: --%s and --%s clash", command->name, option->name,
					other->name);
		}
	}
}

static void commands_are_whole(void **state)
{
	for (size_t i = 0; kb_commands[i]; i++) {
		const struct kb_command *c = kb_commands[i];
		size_t len = strlen(c->summary);

		assert_non_null(c->run);
		assert_true(len > 8 && len <= SUMMARY_MAX && c->summary[len - 1] != '.');
		assert_true(isupper((unsigned char)c->summary[0]));
		if (!c->hidden)
			assert_non_null(c->man);
		for (size_t o = 0; c->operands[o].name; o++)
			assert_true(o < KB_OPERANDS_MAX && c->operands[o].max >= 1);
		check_options(c);
	}
}

/* Families stand together, and no name is there twice: completions and help rely on it. */
static void names_are_in_order(void **state)
{
	for (size_t i = 0; kb_commands[i]; i++) {
		size_t len = strcspn(kb_commands[i]->name, " ");
		bool gap = false;

		for (size_t j = i; j-- > 0;) {
			bool kin = !strncmp(kb_commands[j]->name, kb_commands[i]->name, len) &&
				   (kb_commands[j]->name[len] == ' ' || !kb_commands[j]->name[len]);

			assert_string_not_equal(kb_commands[j]->name, kb_commands[i]->name);
			assert_false(kin && gap);
			gap = gap || !kin;
		}
	}
}

/* ---- Man pages ------------------------------------------------------------------------------- */

static char *read_page(const char *man)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	struct kb_err err;
	char *path KB_FREE = NULL;

	kb_buf_init(&buf, PAGE_MAX);
	path = kb_asprintf("%s/%s.1.scd", man_dir, man);
	if (kb_file_read(path, &buf, &err) < 0)
		fail_msg("%s", err.msg);
	return kb_buf_steal_string(&buf);
}

/* The section "## kbsup NAME …" of a page, up to the next heading. */
static char *section_of(const char *page, const char *name)
{
	char *head KB_FREE = kb_asprintf("\n## kbsup %s", name);
	const char *at = page, *end;
	size_t len = strlen(head);

	while ((at = strstr(at, head)) && at[len] != '\n' && at[len] != ' ')
		at += len;
	if (!at)
		return NULL;
	end = strstr(at + 1, "\n#");
	return end ? strndup(at, (size_t)(end - at)) : strdup(at);
}

static void check_documented(const struct kb_command *command, const char *section)
{
	const struct kb_option *option;

	for (size_t i = 0; (option = kb_command_option(command, i)); i++) {
		char *name KB_FREE = kb_asprintf("*--%s*", option->name);
		char *letter KB_FREE = kb_asprintf("*-%c*", option->letter);

		if (option == &kb_common_options[0])
			continue;
		if (!strstr(section, name) || (option->letter && !strstr(section, letter)))
			fail_msg("%s lacks --%s of %s", command->man, option->name, command->name);
	}
	/* And back: the page promises no option that the table lacks. */
	for (const char *at = section; (at = strstr(at, "\n*--")); at++) {
		size_t len = strcspn(at + 4, "*");
		bool known = false;

		for (size_t i = 0; (option = kb_command_option(command, i)); i++)
			known = known || (strlen(option->name) == len &&
						 !strncmp(option->name, at + 4, len));
		if (!known)
			fail_msg("%s promises %s an option --%.*s", command->man, command->name,
				(int)len, at + 4);
	}
}

static void man_pages_say_the_same(void **state)
{
	for (size_t i = 0; kb_commands[i]; i++) {
		const struct kb_command *c = kb_commands[i];
		char *page KB_FREE = NULL, *section KB_FREE = NULL;

		if (c->hidden)
			continue;
		page = read_page(c->man);
		section = section_of(page, c->short_for ? c->short_for : c->name);
		if (!section)
			fail_msg("%s has no section for kbsup %s", c->man, c->name);
		check_documented(c, section);
	}
}

static void the_first_page_lists_all(void **state)
{
	char *page KB_FREE = read_page("kbsup");

	for (size_t i = 0; kb_commands[i]; i++) {
		char *name KB_FREE = kb_asprintf("*%s*", kb_commands[i]->name);

		if (!kb_commands[i]->hidden && !strstr(page, name))
			fail_msg("kbsup.1 does not list %s", kb_commands[i]->name);
	}
}

/* ---- Completions and help -------------------------------------------------------------------- */

static char *printed(void (*print)(FILE *out))
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	print(out);
	fclose(out);
	return text;
}

static const struct {
	const char *shell;
	void (*print)(FILE *out);
	bool fish; /* writes options its own way */
} shells[] = {
	{"bash", kb_completion_bash, false},
	{"zsh", kb_completion_zsh, false},
	{"fish", kb_completion_fish, true},
};

static void completions_have_everything(void **state)
{
	const struct kb_option *option;

	for (size_t s = 0; s < KB_ARRAY_LEN(shells); s++) {
		char *text KB_FREE = printed(shells[s].print);

		for (size_t i = 0; kb_commands[i]; i++) {
			const char *last = strrchr(kb_commands[i]->name, ' ');

			last = last ? last + 1 : kb_commands[i]->name;
			if (kb_commands[i]->hidden)
				continue;
			if (!strstr(text, last))
				fail_msg("%s lacks %s", shells[s].shell, kb_commands[i]->name);
			for (size_t o = 0; (option = kb_command_option(kb_commands[i], o)); o++) {
				char *want KB_FREE = kb_asprintf(
					"%s%s", shells[s].fish ? "-l " : "--", option->name);

				if (!strstr(text, want))
					fail_msg("%s lacks --%s", shells[s].shell, option->name);
			}
		}
	}
}

static void help_has_every_option(void **state)
{
	struct kb_cli cli = {.columns = 80};
	const struct kb_option *option;

	for (size_t i = 0; kb_commands[i]; i++) {
		char *text KB_FREE = NULL, *line;
		size_t len;
		FILE *out = open_memstream(&text, &len);

		kb_help_command(&cli, kb_commands[i], out);
		fclose(out);
		for (size_t o = 0; (option = kb_command_option(kb_commands[i], o)); o++) {
			char *name KB_FREE = kb_asprintf("--%s", option->name);

			assert_non_null(strstr(text, name));
		}
		for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
			if (kb_text_width(line) > 80)
				fail_msg("%s: too wide: %s", kb_commands[i]->name, line);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_are_whole),
		cmocka_unit_test(names_are_in_order),
		cmocka_unit_test(man_pages_say_the_same),
		cmocka_unit_test(the_first_page_lists_all),
		cmocka_unit_test(completions_have_everything),
		cmocka_unit_test(help_has_every_option),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY-OF-MAN-PAGES\n", argv[0]);
		return 2;
	}
	man_dir = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
