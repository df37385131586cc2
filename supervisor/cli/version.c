#include "cli.h"
#include "verbs.h"

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	if (cli->json)
		return kb_json_print(cli, json_pack("{s:s}", "version", KB_VERSION), err);
	printf("kbsup %s\n", KB_VERSION);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_version = {
	.name = "version",
	.group = KB_GROUP_OTHER,
	.summary = "Print the version of kbsup",
	.json = true,
	.man = "kbsup",
	.run = run,
};
