#include "help.h"

#include <string.h>

#include "supervisor/base/buf.h"
#include "verbs.h"

#define USAGE_MAX   4096
#define HELP_INDENT 26 /* where the text of options starts */
#define HELP_WIDTH  100

static void add(struct kb_buf *buf, size_t *column, unsigned columns, const char *piece)
{
	size_t width = kb_text_width(piece);

	if (columns && *column + 1 + width > columns) {
		kb_buf_printf(buf, NULL, "\n%*s", 12, "");
		*column = 11;
	}
	kb_buf_printf(buf, NULL, " %s", piece);
	*column += width + 1;
}

static char *option_piece(const struct kb_option *option)
{
	const char *value = option->words ? option->words : option->arg;

	if (!option->arg)
		return kb_xprintf("[--%s]", option->name);
	return kb_xprintf("[--%s %s]%s", option->name, value, option->repeat ? "…" : "");
}

static char *operand_piece(const struct kb_operand *operand)
{
	const char *more = operand->max > 1 ? "…" : "";

	if (operand->min)
		return kb_xprintf("%s%s", operand->name, more);
	return kb_xprintf("[%s%s]", operand->name, more);
}

char *kb_help_usage(const struct kb_command *command, unsigned columns)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	const struct kb_option *option;
	size_t column = 6 + strlen(command->name);
	char *text;

	kb_buf_init(&buf, USAGE_MAX);
	kb_buf_printf(&buf, NULL, "kbsup %s", command->name);
	for (const struct kb_operand *o = command->operands; o->name; o++) {
		char *piece KB_FREE = operand_piece(o);

		add(&buf, &column, columns, piece);
	}
	for (size_t i = 0; (option = kb_command_option(command, i)); i++) {
		char *piece KB_FREE = NULL;

		if (option == &kb_common_options[0])
			continue;
		piece = option_piece(option);
		add(&buf, &column, columns, piece);
	}
	if (command->tail == KB_TAIL_OPTIONAL)
		add(&buf, &column, columns, "[-- CMD…]");
	else if (command->tail == KB_TAIL_REQUIRED)
		add(&buf, &column, columns, "-- CMD…");
	text = kb_buf_steal_string(&buf);
	return text ? text : kb_xstrdup("");
}

static void title(const struct kb_cli *cli, FILE *out, const char *text)
{
	fprintf(out, "\n%s%s%s\n", kb_tone(cli->colour, KB_TONE_BOLD), text,
		kb_tone_end(cli->colour, KB_TONE_BOLD));
}

/* Words, wrapped, starting at column `indent` which the cursor has already reached. */
static void wrapped(FILE *out, const char *text, size_t indent, size_t width)
{
	size_t column = indent;

	for (const char *at = text; *at;) {
		size_t bytes = strcspn(at, " \n");
		char *word KB_FREE = strndup(at, bytes);
		size_t w = word ? kb_text_width(word) : bytes;

		if (column > indent && column + w > width) {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		}
		fprintf(out, "%.*s", (int)bytes, at);
		column += w;
		at += bytes;
		if (*at == '\n') {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
			at++;
		} else if (*at == ' ') {
			at++;
			if (*at && column + 1 < width)
				column += (size_t)fprintf(out, " ");
		}
	}
	fputc('\n', out);
}

static size_t width_of(const struct kb_cli *cli)
{
	return cli->columns ? KB_MIN(cli->columns, HELP_WIDTH) : HELP_WIDTH;
}

static void option_line(const struct kb_cli *cli, const struct kb_option *option, FILE *out)
{
	const char *value = option->words ? option->words : option->arg;
	char letter[8] = "    ";
	char *head KB_FREE = NULL;
	size_t width;

	if (option->letter)
		snprintf(letter, sizeof(letter), "-%c, ", option->letter);
	head = kb_xprintf(
		"  %s--%s%s%s", letter, option->name, value ? " " : "", value ? value : "");
	width = kb_text_width(head);
	fputs(head, out);
	if (width + 2 > HELP_INDENT) {
		fprintf(out, "\n%*s", HELP_INDENT, "");
	} else {
		fprintf(out, "%*s", (int)(HELP_INDENT - width), "");
	}
	wrapped(out, option->help, HELP_INDENT, width_of(cli));
}

void kb_help_command(const struct kb_cli *cli, const struct kb_command *command, FILE *out)
{
	char *usage KB_FREE = kb_help_usage(command, (unsigned)width_of(cli) - 7);
	const struct kb_option *option;

	fprintf(out, "usage: %s\n\n", usage);
	wrapped(out, command->about ? command->about : command->summary, 0, width_of(cli));
	title(cli, out, "Options");
	for (size_t i = 0; (option = kb_command_option(command, i)); i++)
		option_line(cli, option, out);
	if (command->man)
		fprintf(out, "\nMore: man %s\n", command->man);
}

static void command_line(const struct kb_cli *cli, const struct kb_command *command, FILE *out)
{
	fprintf(out, "  %-*s", HELP_INDENT - 4, command->name);
	wrapped(out, command->summary, HELP_INDENT - 2, width_of(cli));
}

void kb_help_overview(const struct kb_cli *cli, FILE *out)
{
	fputs("usage: kbsup COMMAND [OPTIONS]\n\n"
	      "Runs AI coding agents in audited, policy-bound sessions.\n",
		out);
	for (int group = 0; group < KB_GROUP_MAX_; group++) {
		title(cli, out, kb_group_title(group));
		for (size_t i = 0; kb_commands[i]; i++)
			if ((int)kb_commands[i]->group == group && !kb_commands[i]->hidden)
				command_line(cli, kb_commands[i], out);
	}
	fputs("\nOne command in detail: kbsup help COMMAND. The whole story: man kbsup\n", out);
}

void kb_help_family(const struct kb_cli *cli, const char *family, FILE *out)
{
	size_t len = strlen(family);

	fprintf(out, "usage: kbsup %s COMMAND [OPTIONS]\n\n", family);
	for (size_t i = 0; kb_commands[i]; i++)
		if (!strncmp(kb_commands[i]->name, family, len) && kb_commands[i]->name[len] == ' ')
			command_line(cli, kb_commands[i], out);
	fprintf(out, "\nOne command in detail: kbsup help %s COMMAND\n", family);
}

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const struct kb_command *command;
	int used;

	if (!args->n_operands) {
		kb_help_overview(cli, stdout);
		return KB_EXIT_OK;
	}
	if (args->n_operands == 1 && kb_command_is_family(args->operands[0])) {
		kb_help_family(cli, args->operands[0], stdout);
		return KB_EXIT_OK;
	}
	command = kb_command_find(args->operands, (int)args->n_operands, &used, err);
	if (!command)
		return -KB_ERR_USAGE;
	kb_help_command(cli, command, stdout);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_help = {
	.name = "help",
	.group = KB_GROUP_OTHER,
	.summary = "Show the commands, or one command in detail",
	.about =
		"Without a command, lists all commands. With one, shows its usage and its options.",
	.operands = {{.name = "COMMAND", .max = 2, .kind = KB_KIND_VERB}},
	.man = "kbsup",
	.run = run,
};
