/* The zsh script: one function per command with its _arguments specification. */
#include <string.h>

#include "completion.h"

static const char head[] =
	"#compdef kbsup\n"
	"# zsh completion for kbsup; made from its command table\n"
	"\n"
	"# live names, one a line; what follows a tab describes the name; expressions need to "
	"know\n"
	"# what stands before\n"
	"_kbsup_live() {\n"
	"\tlocal -a names before\n"
	"\tlocal line\n"
	"\t[[ $1 == field ]] && before=(\"${(@)words[2,CURRENT-1]}\")\n"
	"\tfor line in ${(f)\"$(kbsup __complete $1 -- \"${(@)before}\" 2>/dev/null)\"}; do\n"
	"\t\tnames+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
	"\tdone\n"
	"\t_describe -t $1 $1 names\n"
	"}\n"
	"\n"
	"_kbsup_policy() {\n"
	"\t_alternative 'names:policy: _kbsup_live policy' 'files:file:_files -g \"*.policy\"'\n"
	"}\n"
	"\n";

static const char driver[] = "_kbsup() {\n"
			     "\tlocal verb=$words[2]\n"
			     "\tif ((CURRENT == 2)); then\n"
			     "\t\t_describe -t commands command _kbsup_commands\n"
			     "\t\treturn\n"
			     "\tfi\n"
			     "\tif (($+functions[_kbsup_family_$verb])); then\n"
			     "\t\tif ((CURRENT == 3)); then\n"
			     "\t\t\t_kbsup_family_$verb\n"
			     "\t\t\treturn\n"
			     "\t\tfi\n"
			     "\t\tverb=${verb}_$words[3]\n"
			     "\t\tshift words\n"
			     "\t\t((CURRENT--))\n"
			     "\tfi\n"
			     "\tshift words\n"
			     "\t((CURRENT--))\n"
			     "\t(($+functions[_kbsup_verb_$verb])) && _kbsup_verb_$verb\n"
			     "}\n"
			     "\n"
			     "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n"
			     "\t_kbsup \"$@\"\n"
			     "else\n"
			     "\tcompdef _kbsup kbsup\n"
			     "fi\n";

/* Text inside single quotes and an _arguments specification. */
static void print_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", out);
		else if (strchr("[]:\\", *text))
			fprintf(out, "\\%c", *text);
		else
			fputc(*text, out);
	}
}

static void print_action(FILE *out, enum kb_kind kind, const char *words)
{
	static const char *const actions[] = {
		[KB_KIND_TEXT] = " ",
		[KB_KIND_FILE] = "_files",
		[KB_KIND_POLICY_FILE] = "_files -g \"*.policy\"",
		[KB_KIND_DIR] = "_files -/",
		[KB_KIND_COUNT] = " ",
		[KB_KIND_ENV] = "_parameters -g \"*export*\"",
		[KB_KIND_VERB] = "{_describe -t commands command _kbsup_commands}",
		[KB_KIND_POLICY] = "_kbsup_policy",
	};

	if (kind == KB_KIND_WORD) {
		fputc('(', out);
		for (; *words; words++)
			fputc(*words == '|' ? ' ' : *words, out);
		fputc(')', out);
	} else if (kind != KB_KIND_POLICY && kb_completion_live(kind)) {
		fprintf(out, " _kbsup_live %s", kb_completion_live(kind));
	} else {
		fputs(actions[kind], out);
	}
}

static void print_option(FILE *out, const struct kb_option *option)
{
	fputs(" \\\n\t\t", out);
	if (option->letter && option->repeat)
		fprintf(out, "'*'{-%c,--%s}'", option->letter, option->name);
	else if (option->letter)
		fprintf(out, "'(-%c --%s)'{-%c,--%s}'", option->letter, option->name,
			option->letter, option->name);
	else
		fprintf(out, "'%s--%s", option->repeat ? "*" : "", option->name);
	fputc('[', out);
	print_text(out, option->help);
	fputc(']', out);
	if (option->arg) {
		fputc(':', out);
		print_text(out, option->arg);
		fputc(':', out);
		print_action(out, option->kind, option->words);
	}
	fputc('\'', out);
}

static void print_operand(FILE *out, const struct kb_operand *operand)
{
	fprintf(out, " \\\n\t\t'%s%s", operand->max >= KB_MANY ? "*" : "",
		operand->min ? ":" : "::");
	print_text(out, operand->name);
	fputc(':', out);
	print_action(out, operand->kind, operand->words);
	fputc('\'', out);
}

static void print_command(FILE *out, const struct kb_command *command)
{
	const struct kb_option *option;

	fputs("_kbsup_verb_", out);
	for (const char *at = command->name; *at; at++)
		fputc(*at == ' ' ? '_' : *at, out);
	fputs("() {\n\t_arguments -s", out);
	for (size_t i = 0; (option = kb_command_option(command, i)); i++)
		print_option(out, option);
	for (const struct kb_operand *o = command->operands; o->name; o++)
		for (unsigned i = 0; i < (o->max >= KB_MANY ? 1 : o->max); i++)
			print_operand(out, o);
	if (command->tail != KB_TAIL_NONE)
		fputs(" \\\n\t\t'*:: :_normal'", out);
	fputs("\n}\n\n", out);
}

static void print_entry(FILE *out, const char *name, size_t len, const char *summary)
{
	fprintf(out, "\t'%.*s:", (int)len, name);
	print_text(out, summary);
	fputs("'\n", out);
}

static void print_names(FILE *out)
{
	fputs("_kbsup_commands=(\n", out);
	for (size_t c = 0; kb_commands[c]; c++) {
		const struct kb_command *command = kb_commands[c];
		size_t len = strcspn(command->name, " ");
		char members[KB_MEMBERS_MAX];

		if (command->hidden)
			continue;
		if (command->name[len] && c &&
			!strncmp(kb_commands[c - 1]->name, command->name, len))
			continue;
		print_entry(out, command->name, len,
			command->name[len] ? kb_family_members(command, members)
					   : command->summary);
	}
	fputs(")\n\n", out);
}

static void print_families(FILE *out)
{
	for (size_t c = 0; kb_commands[c]; c++) {
		const char *name = kb_commands[c]->name;
		size_t len = strcspn(name, " ");

		if (!name[len] || (c && !strncmp(kb_commands[c - 1]->name, name, len + 1)))
			continue;
		fprintf(out, "_kbsup_family_%.*s() {\n\tlocal -a names=(\n", (int)len, name);
		for (size_t i = c; kb_commands[i]; i++)
			if (!strncmp(kb_commands[i]->name, name, len + 1))
				print_entry(out, kb_commands[i]->name + len + 1,
					strlen(kb_commands[i]->name + len + 1),
					kb_commands[i]->summary);
		fputs("\t)\n\t_describe -t commands command names\n}\n\n", out);
	}
}

void kb_completion_zsh(FILE *out)
{
	fputs(head, out);
	print_names(out);
	print_families(out);
	for (size_t c = 0; kb_commands[c]; c++)
		if (!kb_commands[c]->hidden)
			print_command(out, kb_commands[c]);
	fputs(driver, out);
}
