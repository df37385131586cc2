/* What the host says to the guest, up to the point where it would change the machine: the message,
 * the policy bundle in it lowered to this machine, and the process's specification, which
 * kbsup-init must be able to read. */
#include <stdlib.h>
#include <string.h>

#include "proto/link.pb-c.h"
#include "supervisor/guest/initlink.h"
#include "supervisor/guest/setup.h"
#include "supervisor/init/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kb_byte_string *strings(const ProtobufCBinaryData *from, size_t n)
{
	struct kb_byte_string *to = calloc(n + 1, sizeof(*to));

	for (size_t i = 0; to && i < n; i++)
		to[i] = (struct kb_byte_string){.data = from[i].data, .len = from[i].len};
	return to;
}

/* What we write for init, init must take. */
static void specify(const Kb__ProcessSpec *spec, const struct kb_setup *setup)
{
	static struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, 0x7fff0000);
	struct kb_byte_string *argv = strings(spec->argv, spec->n_argv);
	struct kb_byte_string *env = strings(spec->env, spec->n_env);
	struct kb_init_process p = {.cwd = {(const uint8_t *)"/", 1},
		.argv = argv,
		.n_argv = spec->n_argv,
		.env = env,
		.n_env = spec->n_env,
		.tty = spec->tty,
		.filter = &allow,
		.n_filter = 1};
	struct kb_spec parsed;
	struct kb_buf out;

	if (spec->has_cwd)
		p.cwd = (struct kb_byte_string){spec->cwd.data, spec->cwd.len};
	if (setup) {
		p.landlock = setup->landlock;
		p.n_landlock = setup->n_landlock;
		p.rlimits = setup->rlimits;
		p.n_rlimits = setup->n_rlimits;
	}
	kb_buf_init(&out, KB_INIT_SPEC_MAX);
	if (argv && env && kb_initlink_spec(&p, &out, NULL) == 0) {
		if (!kb_spec_parse(kb_buf_data(&out), kb_buf_len(&out), &parsed))
			abort();
		kb_spec_finish(&parsed);
	}
	kb_buf_finish(&out);
	free(argv);
	free(env);
}

static void set_up(const Kb__StartSession *start)
{
	const struct kb_setup_options options = {.state = "/nonexistent",
		.init = "/nonexistent",
		.runtime = "/nonexistent",
		.cgroups = (unsigned)start->workspace.len & 15};
	struct kb_lines lines = {0};
	struct kb_setup setup;
	struct kb_err err;

	if (start->session.len != 16)
		return;
	if (kb_setup_make(start, &options, &setup, &err) < 0) {
		if (err.msg[0] == '\0')
			abort();
		specify(start->process, NULL);
		return;
	}
	kb_setup_effective(&setup, 7, &lines, &err);
	specify(start->process, &setup);
	kb_lines_finish(&lines);
	kb_setup_finish(&setup);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Kb__ToGuest *msg = kb__to_guest__unpack(NULL, size, data);

	if (!msg)
		return 0;
	if (msg->body_case == KB__TO_GUEST__BODY_START)
		set_up(msg->start);
	if (msg->body_case == KB__TO_GUEST__BODY_EXEC)
		specify(msg->exec->process, NULL);
	kb__to_guest__free_unpacked(msg, NULL);
	return 0;
}
