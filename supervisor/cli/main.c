/* kbsup: finds the command in the table, parses its words, carries it out, and prints whatever
 * went wrong. Nothing else in the program prints an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "cli.h"
#include "help.h"
#include "settings.h"
#include "supervisor/base/log.h"
#include "verbs.h"

static int report(const struct kb_cli *cli, const struct kb_err *err)
{
	fflush(stdout);
	fprintf(stderr, "%skbsup:%s %s\n", kb_tone(cli->err_colour, KB_TONE_BAD),
		kb_tone_end(cli->err_colour, KB_TONE_BAD), err->msg);
	if (err->hint[0])
		fprintf(stderr, "  %s\n", err->hint);
	return kb_err_exit_status(err);
}

/* A full disk behind stdout must not read as success. */
static int finish_output(const struct kb_cli *cli, int status)
{
	struct kb_err err;

	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	kb_err_sys(&err, errno ? errno : EIO, "the output could not be written");
	report(cli, &err);
	return status ? status : KB_EXIT_FAILED;
}

static int call(struct kb_cli *cli, const struct kb_command *command, int n, char **words,
	struct kb_err *err)
{
	struct kb_settings settings KB_CLEANUP(kb_settings_finish) = {0};
	struct kb_args args KB_CLEANUP(kb_args_finish);
	int r = kb_args_parse(&args, command, n, words, err);

	if (r < 0)
		return r;
	if (kb_args_has(&args, "help")) {
		kb_help_command(cli, command, stdout);
		return KB_EXIT_OK;
	}
	r = kb_settings_apply(&settings, &args, err);
	if (r < 0)
		return r;
	cli->json = command->json && kb_args_has(&args, "json");
	return command->run(cli, &args, err);
}

/* What people type where a command belongs. */
static const struct {
	const char *word;
	const struct kb_command *command;
} aliases[] = {
	{"-h", &kb_cmd_help},
	{"--help", &kb_cmd_help},
	{"-V", &kb_cmd_version},
	{"--version", &kb_cmd_version},
};

static int dispatch(struct kb_cli *cli, int n_words, char **words, struct kb_err *err)
{
	const struct kb_command *command;
	int used;

	if (n_words == 0) {
		kb_help_overview(cli, stderr);
		return KB_EXIT_USAGE;
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(aliases); i++)
		if (!strcmp(words[0], aliases[i].word))
			return call(cli, aliases[i].command, n_words - 1, words + 1, err);
	if (words[0][0] == '-') {
		kb_err_set(err, KB_ERR_USAGE, "'%s' stands where a command belongs", words[0]);
		return kb_err_hint(err, "options follow the command: kbsup COMMAND %s", words[0]);
	}
	if (n_words == 2 && kb_command_is_family(words[0]) &&
		(!strcmp(words[1], "-h") || !strcmp(words[1], "--help"))) {
		kb_help_family(cli, words[0], stdout);
		return KB_EXIT_OK;
	}
	command = kb_command_find(words, n_words, &used, err);
	if (!command)
		return -KB_ERR_USAGE;
	return call(cli, command, n_words - used, words + used, err);
}

/* Closed standard descriptors would be given to the next open(): a command's pipe or a socket would
 * then receive what is printed. */
static void hold_standard_fds(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) != fd)
			_exit(KB_EXIT_FAILED);
}

int main(int argc, char **argv)
{
	struct kb_err err = {0};
	struct kb_cli cli;
	int r;

	hold_standard_fds();
	kb_log_init("kbsup");
	kb_cli_init(&cli);
	r = dispatch(&cli, argc - 1, argv + 1, &err);
	if (r < 0)
		r = report(&cli, &err);
	return finish_output(&cli, r);
}
