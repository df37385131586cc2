/* The fish script: one `complete` line per command, option and operand. */
#include <string.h>

#include "completion.h"

static const char head[] =
	"# fish completion for kbsup; made from its command table\n"
	"\n"
	"# true when the words so far begin with these\n"
	"function __kbsup_at\n"
	"\tset -l words (commandline -opc)\n"
	"\ttest (count $words) -gt (count $argv); or return 1\n"
	"\tfor i in (seq (count $argv))\n"
	"\t\ttest $words[(math $i + 1)] = $argv[$i]; or return 1\n"
	"\tend\n"
	"\tnot contains -- -- $words\n"
	"end\n"
	"\n"
	"# true when they are all there is\n"
	"function __kbsup_only\n"
	"\ttest (count (commandline -opc)) -eq (math (count $argv) + 1); and __kbsup_at $argv\n"
	"end\n"
	"\n"
	"complete -c kbsup -f\n"
	"complete -c kbsup -n 'contains -- -- (commandline -opc)' "
	"-a '(__fish_complete_subcommand --fcs-skip=(math 1 + (contains -i -- -- "
	"(commandline -opc))))'\n";

static void print_text(FILE *out, const char *text)
{
	fputc('\'', out);
	for (; *text; text++) {
		if (strchr("'\\", *text))
			fputc('\\', out);
		fputc(*text, out);
	}
	fputc('\'', out);
}

static bool wants_files(enum kb_kind kind)
{
	return kind == KB_KIND_FILE || kind == KB_KIND_POLICY_FILE || kind == KB_KIND_POLICY;
}

static void print_source(FILE *out, enum kb_kind kind, const char *words)
{
	const char *live = kb_completion_live(kind);

	if (kind == KB_KIND_WORD) {
		fputs(" -a '", out);
		for (; *words; words++)
			fputc(*words == '|' ? ' ' : *words, out);
		fputc('\'', out);
	} else if (live) {
		/* An expression needs to know what stands before: kbsup audit query … */
		fprintf(out, " -a '(kbsup __complete %s%s 2>/dev/null)'", live,
			kind == KB_KIND_EXPR ? " -- (commandline -opc)[4..]" : "");
	} else if (kind == KB_KIND_DIR) {
		fputs(" -a '(__fish_complete_directories)'", out);
	} else if (kind == KB_KIND_ENV) {
		fputs(" -a '(set -xn)'", out);
	}
	if (wants_files(kind))
		fputs(" -F", out);
}

static void print_option(
	FILE *out, const struct kb_command *command, const struct kb_option *option)
{
	fprintf(out, "complete -c kbsup -n '__kbsup_at %s' -l %s", command->name, option->name);
	if (option->letter)
		fprintf(out, " -s %c", option->letter);
	if (option->arg) {
		fputs(wants_files(option->kind) ? " -r" : " -x", out);
		print_source(out, option->kind, option->words);
	}
	fputs(" -d ", out);
	print_text(out, option->help);
	fputc('\n', out);
}

static void print_verb(
	FILE *out, const char *condition, const char *name, size_t len, const char *summary)
{
	fprintf(out, "complete -c kbsup -n '__kbsup_only%s%s' -a %.*s -d ", *condition ? " " : "",
		condition, (int)len, name);
	print_text(out, summary);
	fputc('\n', out);
}

static void print_name(FILE *out, size_t c)
{
	const struct kb_command *command = kb_commands[c];
	size_t len = strcspn(command->name, " ");
	char family[32] = "", members[KB_MEMBERS_MAX];

	if (!command->name[len]) {
		print_verb(out, "", command->name, len, command->summary);
		return;
	}
	if (!c || strncmp(kb_commands[c - 1]->name, command->name, len + 1))
		print_verb(out, "", command->name, len, kb_family_members(command, members));
	snprintf(family, sizeof(family), "%.*s", (int)len, command->name);
	print_verb(out, family, command->name + len + 1, strlen(command->name + len + 1),
		command->summary);
}

void kb_completion_fish(FILE *out)
{
	const struct kb_option *option;

	fputs(head, out);
	for (size_t c = 0; kb_commands[c]; c++) {
		const struct kb_command *command = kb_commands[c];

		if (command->hidden)
			continue;
		print_name(out, c);
		for (size_t i = 0; (option = kb_command_option(command, i)); i++)
			print_option(out, command, option);
		for (const struct kb_operand *o = command->operands; o->name; o++) {
			fprintf(out, "complete -c kbsup -n '__kbsup_at %s'", command->name);
			print_source(out, o->kind, o->words);
			fputc('\n', out);
		}
	}
}
