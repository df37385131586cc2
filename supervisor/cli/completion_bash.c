/* The bash script: three functions that are one `case` each (the options of a command, the kind of
 * an option's value, the kind of an operand), generated, and one driver, constant. */
#include <string.h>

#include "completion.h"

static const char head[] = "# bash completion for kbsup; made from its command table\n\n";

static const char driver[] =
	"_kbsup_fill() {\n"
	"\tlocal kind=$1 cur=$2 IFS=$'\\n'\n"
	"\tcase $kind in\n"
	"\t'') ;;\n"
	"\tfile) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n"
	"\tdir) compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\")) ;;\n"
	"\tpolicy-file) compopt -o filenames\n"
	"\t\tCOMPREPLY=($(compgen -f -X '!*.policy' -- \"$cur\") $(compgen -d -- \"$cur\")) ;;\n"
	"\tenv) COMPREPLY=($(compgen -e -- \"$cur\")) ;;\n"
	"\tverb) COMPREPLY=($(compgen -W \"$(_kbsup_verbs | tr ' ' '\\n')\" -- \"$cur\")) ;;\n"
	"\tword:*) COMPREPLY=($(compgen -W \"$(tr '|' '\\n' <<<\"${kind#word:}\")\" -- \"$cur\")) "
	";;\n"
	"\tpolicy) _kbsup_fill policy-file \"$cur\"\n"
	"\t\tCOMPREPLY+=($(compgen -W \"$(_kbsup_live policy)\" -- \"$cur\")) ;;\n"
	"\t*) COMPREPLY=($(compgen -W \"$(_kbsup_live \"$kind\")\" -- \"$cur\")) ;;\n"
	"\tesac\n"
	"}\n"
	"\n"
	"# live names, one a line; what follows a tab describes the name; expressions need to "
	"know\n"
	"# what stands before\n"
	"_kbsup_live() {\n"
	"\tlocal -a words=()\n"
	"\t[[ $1 == field ]] && words=(\"${before[@]}\")\n"
	"\tkbsup __complete \"$1\" -- \"${words[@]}\" 2>/dev/null | cut -f1\n"
	"}\n"
	"\n"
	"_kbsup() {\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	"\tlocal verb=${COMP_WORDS[1]} at=2 operand=0 word kind\n"
	"\tlocal -a before=()\n"
	"\tCOMPREPLY=()\n"
	"\tif ((COMP_CWORD == 1)); then\n"
	"\t\t_kbsup_fill verb \"$cur\"\n"
	"\t\treturn\n"
	"\tfi\n"
	"\tif [[ -n $(_kbsup_verbs \"$verb\") ]]; then\n"
	"\t\tif ((COMP_CWORD == 2)); then\n"
	"\t\t\tCOMPREPLY=($(compgen -W \"$(_kbsup_verbs \"$verb\")\" -- \"$cur\"))\n"
	"\t\t\treturn\n"
	"\t\tfi\n"
	"\t\tverb+=\" ${COMP_WORDS[2]}\"\n"
	"\t\tat=3\n"
	"\tfi\n"
	"\t[[ $cur == = ]] && cur=''\n"
	"\tif [[ $prev == = ]]; then\n"
	"\t\tprev=${COMP_WORDS[COMP_CWORD - 2]}\n"
	"\tfi\n"
	"\tfor ((; at < COMP_CWORD; at++)); do\n"
	"\t\tword=${COMP_WORDS[at]}\n"
	"\t\tcase $word in\n"
	"\t\t--)\n"
	"\t\t\tif declare -F _command_offset >/dev/null; then\n"
	"\t\t\t\t_command_offset $((at + 1))\n"
	"\t\t\telse\n"
	"\t\t\t\tcompopt -o filenames\n"
	"\t\t\t\tCOMPREPLY=($(compgen -c -f -- \"$cur\"))\n"
	"\t\t\tfi\n"
	"\t\t\treturn ;;\n"
	"\t\t-*) [[ -n $(_kbsup_value \"$verb $word\") ]] && ((at++)) ;;\n"
	"\t\t*) ((operand++)); before+=(\"$word\") ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\tkind=$(_kbsup_value \"$verb $prev\")\n"
	"\tif [[ -n $kind ]]; then\n"
	"\t\t_kbsup_fill \"$kind\" \"$cur\"\n"
	"\telif [[ $cur == -* ]]; then\n"
	"\t\tCOMPREPLY=($(compgen -W \"$(_kbsup_options \"$verb\")\" -- \"$cur\"))\n"
	"\telse\n"
	"\t\t_kbsup_fill \"$(_kbsup_operand \"$verb\" \"$operand\")\" \"$cur\"\n"
	"\tfi\n"
	"}\n"
	"\n"
	"complete -F _kbsup kbsup\n";

static void print_kind(FILE *out, enum kb_kind kind, const char *words)
{
	static const char *const names[] = {
		[KB_KIND_TEXT] = "text",
		[KB_KIND_FILE] = "file",
		[KB_KIND_POLICY_FILE] = "policy-file",
		[KB_KIND_DIR] = "dir",
		[KB_KIND_COUNT] = "text",
		[KB_KIND_ENV] = "env",
		[KB_KIND_VERB] = "verb",
	};

	if (kind == KB_KIND_WORD)
		fprintf(out, "'word:%s'", words);
	else
		fputs(kb_completion_live(kind) ? kb_completion_live(kind) : names[kind], out);
}

static void print_options(FILE *out)
{
	const struct kb_option *option;

	fputs("_kbsup_options() {\n\tcase $1 in\n", out);
	for (size_t c = 0; kb_commands[c]; c++) {
		if (kb_commands[c]->hidden)
			continue;
		fprintf(out, "\t'%s') echo '", kb_commands[c]->name);
		for (size_t i = 0; (option = kb_command_option(kb_commands[c], i)); i++)
			fprintf(out, "%s--%s", i ? " " : "", option->name);
		fputs("' ;;\n", out);
	}
	fputs("\tesac\n}\n\n", out);
}

static void print_values(FILE *out)
{
	const struct kb_option *option;

	fputs("_kbsup_value() {\n\tcase $1 in\n", out);
	for (size_t c = 0; kb_commands[c]; c++) {
		for (size_t i = 0; (option = kb_command_option(kb_commands[c], i)); i++) {
			if (!option->arg || kb_commands[c]->hidden)
				continue;
			fprintf(out, "\t'%s --%s'", kb_commands[c]->name, option->name);
			if (option->letter)
				fprintf(out, " | '%s -%c'", kb_commands[c]->name, option->letter);
			fputs(") echo ", out);
			print_kind(out, option->kind, option->words);
			fputs(" ;;\n", out);
		}
	}
	fputs("\tesac\n}\n\n", out);
}

static void print_operands(FILE *out)
{
	fputs("_kbsup_operand() {\n\tcase $1 in\n", out);
	for (size_t c = 0; kb_commands[c]; c++) {
		const struct kb_operand *o = kb_commands[c]->operands;

		if (!o->name || kb_commands[c]->hidden)
			continue;
		fprintf(out, "\t'%s')\n", kb_commands[c]->name);
		for (unsigned first = 0; o->name; first += o->max, o++) {
			fprintf(out, "\t\t(($2 >= %u && $2 < %u)) && echo ", first, first + o->max);
			print_kind(out, o->kind, o->words);
			fputc('\n', out);
		}
		fputs("\t\t;;\n", out);
	}
	fputs("\tesac\n}\n\n", out);
}

/* First words; with a family's name, its second words. */
static void print_verbs(FILE *out)
{
	const char *last = "";

	fputs("_kbsup_verbs() {\n\tcase $1 in\n\t'') echo '", out);
	for (size_t c = 0; kb_commands[c]; c++) {
		const char *name = kb_commands[c]->name;
		size_t len = strcspn(name, " ");

		if (kb_commands[c]->hidden || (!strncmp(name, last, len) && last[len] == ' '))
			continue;
		fprintf(out, "%s%.*s", *last ? " " : "", (int)len, name);
		last = name;
	}
	fputs("' ;;\n", out);
	for (size_t c = 0; kb_commands[c]; c++) {
		const char *name = kb_commands[c]->name;
		size_t len = strcspn(name, " ");

		if (!name[len] || kb_commands[c]->hidden)
			continue;
		if (c && !strncmp(kb_commands[c - 1]->name, name, len + 1))
			continue;
		fprintf(out, "\t'%.*s') echo '", (int)len, name);
		for (size_t i = c; kb_commands[i]; i++)
			if (!strncmp(kb_commands[i]->name, name, len + 1))
				fprintf(out, "%s%s", i > c ? " " : "",
					kb_commands[i]->name + len + 1);
		fputs("' ;;\n", out);
	}
	fputs("\tesac\n}\n\n", out);
}

void kb_completion_bash(FILE *out)
{
	fputs(head, out);
	print_verbs(out);
	print_options(out);
	print_values(out);
	print_operands(out);
	fputs(driver, out);
}
