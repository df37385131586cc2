/* kbsup-guest and kbsup-init in a machine: those of this build. A base gets them when it is made; a
 * machine of an older one gets them here, through its service. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"
#include "files.h"
#include "machine.h"
#include "programs.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/programs.h"

#define PROGRAMS_DIR "/usr/libexec/kbsup"
#define PROGRAM_MAX  (64u << 20)
#define CHUNK	     (256u << 10) /* as KBM_PUT_MAX of guest/guest.h: a line's worth as hex */
#define HELLO_MS     20000
#define PUT_MS	     30000
#define RESTART_MS   60000

static char *hex_of(const uint8_t *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	char *text = malloc(2 * len + 1);

	for (size_t i = 0; text && i < len; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	if (text)
		text[2 * len] = '\0';
	return text;
}

static int put_chunk(struct kb_agent *agent, const char *path, const struct kb_buf *file, size_t at,
	struct kb_err *err)
{
	size_t len = KB_MIN(kb_buf_len(file) - at, (size_t)CHUNK);
	KB_FREE char *hex = hex_of(kb_buf_data(file) + at, len);
	json_t *request;

	if (!hex)
		return kb_err_nomem(err);
	request = json_pack("{s:s, s:s, s:s, s:b, s:b, s:i}", "op", "put", "path", path, "data",
		hex, "first", at == 0, "last", at + len == kb_buf_len(file), "mode", 0755);
	return kb_agent_call(agent, request, PUT_MS, NULL, err);
}

int kb_program_for(struct kb_vmctl *vm, const struct kb_arch *arch, const char *name,
	char ret[PATH_MAX], struct kb_err *err)
{
	const struct {
		const char *name, *given;
	} given[] = {
		{"kbsup-machine", vm->machine_program},
		{"kbsup-guest", vm->guest_program},
		{"kbsup-init", vm->init_program},
	};

	*ret = '\0';
	for (size_t i = 0; i < KB_ARRAY_LEN(given); i++) {
		if (strcmp(given[i].name, name) != 0 || !*given[i].given)
			continue;
		if (!kb_arch_is_native(arch))
			return kb_program_path_arch(name, arch->name, ret, err);
		snprintf(ret, PATH_MAX, "%s", given[i].given);
	}
	return 0;
}

static int put_program(
	struct kb_agent *agent, const struct kb_arch *arch, const char *name, struct kb_err *err)
{
	struct kb_buf file KB_BUF_CLEANUP;
	char path[128], from[PATH_MAX];
	int r = kb_program_for(agent->vm, arch, name, from, err);

	if (r < 0)
		return r;
	kb_buf_init(&file, PROGRAM_MAX);
	snprintf(path, sizeof(path), PROGRAMS_DIR "/%s", name);
	kb_op_progress(agent->vm, "programs", "bringing %s of this build", name);
	r = kb_file_read(from, &file, err);
	for (size_t at = 0; r == 0 && at < kb_buf_len(&file); at += CHUNK)
		r = put_chunk(agent, path, &file, at, err);
	return r;
}

static int restart_service(struct kb_agent *agent, struct kb_err *err)
{
	KB_JSON json_t *reply = NULL;
	json_t *request = json_pack("{s:s, s:[s,s,s], s:i}", "op", "exec", "argv", "systemctl",
		"restart", "kbsup-guest.service", "timeout_ms", RESTART_MS);
	int r = kb_agent_call(agent, request, RESTART_MS, &reply, err);

	if (r == 0 && kb_json_int(reply, "exit", -1) != 0)
		r = kb_err_set(err, KB_ERR_FAILED,
			"the machine's kbsup-guest service did not start again");
	return r;
}

static int bring(struct kb_machine *m, const struct kb_arch *arch, struct kb_err *err)
{
	struct kb_agent agent;
	int r = kb_agent_open(m->vm, m->id, &agent, err);

	if (r < 0)
		return r;
	r = kb_agent_sync(&agent, HELLO_MS, err);
	if (r == 0)
		r = put_program(&agent, arch, "kbsup-guest", err);
	if (r == 0)
		r = put_program(&agent, arch, "kbsup-init", err);
	if (r == 0)
		r = restart_service(&agent, err);
	kb_agent_close(&agent);
	return r;
}

static int hash_of(struct kb_vmctl *vm, const struct kb_arch *arch, const char *name,
	char ret[KB_HASH_TEXT], struct kb_err *err)
{
	char path[PATH_MAX];
	int r = kb_program_for(vm, arch, name, path, err);

	return r < 0 ? r : kb_file_hash(path, ret, err);
}

int kb_programs_id(struct kb_vmctl *vm, const struct kb_arch *arch, char ret[KB_PROGRAMS_ID],
	struct kb_err *err)
{
	char guest[KB_HASH_TEXT], init[KB_HASH_TEXT];
	int r = hash_of(vm, arch, "kbsup-guest", guest, err);

	if (r == 0)
		r = hash_of(vm, arch, "kbsup-init", init, err);
	if (r == 0)
		snprintf(ret, KB_PROGRAMS_ID, "%s-%s", guest, init);
	return r;
}

/* All that a base is given, by their bytes. */
struct given {
	char programs[KB_PROGRAMS_ID], machine[KB_HASH_TEXT];
};

static int note_ours(
	struct kb_vmctl *vm, const struct kb_arch *arch, struct given *ret, struct kb_err *err)
{
	int r = kb_programs_id(vm, arch, ret->programs, err);

	return r < 0 ? r : hash_of(vm, arch, "kbsup-machine", ret->machine, err);
}

int kb_programs_note(
	struct kb_vmctl *vm, const struct kb_arch *arch, json_t *base, struct kb_err *err)
{
	struct given ours;
	int r = note_ours(vm, arch, &ours, err);

	if (r == 0)
		json_object_update_new(base, json_pack("{s:s, s:s}", "programs", ours.programs,
						     "machine_program", ours.machine));
	return r;
}

bool kb_programs_are_ours(struct kb_vmctl *vm, const json_t *base)
{
	const struct kb_arch *arch;
	struct given ours;

	/* Ours are not all here: nothing to compare with. */
	if (kb_arch_find(kb_json_str(base, "arch", "x86_64"), &arch, NULL) < 0 ||
		note_ours(vm, arch, &ours, NULL) < 0)
		return true;
	return strcmp(kb_json_str(base, "programs", ""), ours.programs) == 0 &&
	       strcmp(kb_json_str(base, "machine_program", ""), ours.machine) == 0;
}

int kb_vm_programs(struct kb_vmctl *vm, const char *name, struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	char id[KB_PROGRAMS_ID];
	const struct kb_arch *arch;
	const char *there;
	int r;

	if (!*vm->guest_program || !*vm->init_program)
		return kb_err_set(err, KB_ERR_NOTFOUND, "kbsup-guest or kbsup-init is not there");
	if ((r = kb_machine_lock(vm, name, &m, err)) < 0 ||
		(r = kb_arch_find(kb_json_str(m.base.json, "arch", "x86_64"), &arch, err)) < 0 ||
		(r = kb_programs_id(vm, arch, id, err)) < 0)
		return r;
	/* What the machine was made with, or was brought since. */
	there = kb_json_str(m.json, "programs", kb_json_str(m.base.json, "programs", ""));
	if (strcmp(there, id) == 0)
		return 0;
	r = bring(&m, arch, err);
	if (r == 0) {
		json_object_set_new(m.json, "programs", json_string(id));
		r = kb_machine_save(&m, err);
	}
	return r;
}
