#include "completion.h"

#include <string.h>

#include "cli.h"
#include "verbs.h"

const char *kb_completion_live(enum kb_kind kind)
{
	switch (kind) {
	case KB_KIND_SESSION:
		return "session";
	case KB_KIND_RUNNING:
		return "running";
	case KB_KIND_RECORDED:
		return "recorded";
	case KB_KIND_MACHINE:
		return "machine";
	case KB_KIND_DISK:
		return "disk";
	case KB_KIND_BASE:
		return "base";
	case KB_KIND_AGENT:
		return "agent";
	case KB_KIND_POLICY:
		return "policy";
	case KB_KIND_EXPR:
		return "field";
	default:
		return NULL;
	}
}

static const struct {
	const char *name;
	void (*print)(FILE *out);
} shells[] = {
	{"bash", kb_completion_bash},
	{"zsh", kb_completion_zsh},
	{"fish", kb_completion_fish},
};

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(shells); i++)
		if (!strcmp(args->operands[0], shells[i].name))
			shells[i].print(stdout);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_completion = {
	.name = "completion",
	.group = KB_GROUP_OTHER,
	.summary = "Print the completion script of a shell",
	.about = "Prints a script that completes commands, options and live names. To try it at "
		 "once:\n"
		 "  bash: source <(kbsup completion bash)\n"
		 "  zsh:  source <(kbsup completion zsh)\n"
		 "  fish: kbsup completion fish | source",
	.operands = {{.name = "SHELL",
		.min = 1,
		.max = 1,
		.kind = KB_KIND_WORD,
		.words = "bash|zsh|fish"}},
	.man = "kbsup",
	.run = run,
};
