/* Driver ssh: machines that are there already. All that is kept is how to reach them and the host
 * key that was pinned; their life is their owner's affair. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "supervisor/base/fd.h"
#include "vmctl/files.h"
#include "vmctl/machine.h"

#define KEY_MAX	 4096
#define PORT_MAX 65535

bool kb_machine_is_remote(const json_t *json)
{
	return !strcmp(kb_json_str(json, "driver", ""), "ssh");
}

int kb_machine_refuse_remote(const struct kb_machine *m, struct kb_err *err)
{
	if (!m->json || !kb_machine_is_remote(m->json))
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "machine %s was added: its life is not kbsup's", m->name);
	return kb_err_hint(err, "kbsup vm ssh and kbsup vm delete are for it");
}

static int check(const struct kb_vm_ssh *ssh, struct kb_err *err)
{
	if (!*ssh->host || !*ssh->user || !*ssh->host_key || ssh->port == 0 || ssh->port > PORT_MAX)
		return kb_err_set(err, KB_ERR_USAGE,
			"a machine to add needs a host, a port, a user and a host key");
	return 0;
}

static int fill(const char *dir, struct kb_vmctl *vm, const char *name, const struct kb_vm_ssh *ssh,
	struct kb_err *err)
{
	KB_JSON json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:I, s:b}",
		"name", name, "driver", "ssh", "id", "", "host", ssh->host, "user", ssh->user,
		"port", (int)ssh->port, "key", ssh->key, "base", "", "created_ns",
		(json_int_t)kb_now_real(), "ready", 1);
	char path[PATH_MAX], line[KEY_MAX];
	int n = snprintf(line, sizeof(line), "%s\n", ssh->host_key), r;

	if (!json)
		return kb_err_set(err, KB_ERR_INVALID, "the machine's words are not UTF-8");
	if ((r = kb_vm_path(vm, path, err, "%s/host_key.pub", dir)) < 0 ||
		(r = kb_file_write_atomic(path, line, (size_t)n, 0600, err)) < 0 ||
		(r = kb_vm_path(vm, path, err, "%s/machine.json", dir)) < 0)
		return r;
	return kb_json_save(path, json, err);
}

int kb_vm_add(
	struct kb_vmctl *vm, const char *name, const struct kb_vm_ssh *ssh, struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	char tmp[PATH_MAX], dir[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r;

	if ((r = check(ssh, err)) < 0 || (r = kb_machine_claim(vm, name, &m, err)) < 0)
		return r;
	if (m.json) {
		kb_err_set(err, KB_ERR_EXISTS, "there is a machine %s", name);
		return kb_err_hint(err, "take another name, or kbsup vm delete %s", name);
	}
	if ((r = kb_tmp_create(vm, tmp, &lock, err)) < 0 ||
		(r = kb_vm_path(vm, dir, err, "%s/machine", tmp)) < 0 ||
		(r = kb_mkdirs(dir, 0700, err)) < 0 || (r = fill(dir, vm, name, ssh, err)) < 0 ||
		(r = kb_dir_publish(dir, m.dir, err)) < 0)
		return r;
	return kb_rmtree(tmp, err);
}

void kb_machine_remote_info(const json_t *json, struct kb_vm_info *ret)
{
	*ret = (struct kb_vm_info){.state = KB_VM_REMOTE,
		.created_ns = kb_json_int(json, "created_ns", 0),
		.ssh_port = (unsigned)kb_json_int(json, "port", 0)};
	snprintf(ret->name, sizeof(ret->name), "%s", kb_json_str(json, "name", ""));
	snprintf(ret->user, sizeof(ret->user), "%s", kb_json_str(json, "user", ""));
	snprintf(ret->host, sizeof(ret->host), "%s", kb_json_str(json, "host", ""));
}

int kb_vm_ssh(struct kb_vmctl *vm, const char *name, struct kb_vm_ssh *ret, struct kb_err *err)
{
	struct kb_buf key KB_BUF_CLEANUP;
	KB_JSON json_t *json = NULL;
	struct kb_vm_info info;
	char path[PATH_MAX], known[PATH_MAX];
	int r;

	kb_buf_init(&key, KEY_MAX);
	*ret = (struct kb_vm_ssh){0};
	if ((r = kb_vm_query(vm, name, false, &info, err)) < 0 ||
		(r = kb_machine_json(vm, name, &json, err)) < 0)
		return r;
	if (!info.ssh_port) {
		kb_err_set(err, KB_ERR_FAILED, "machine %s has no ssh port while it is %s", name,
			kb_vm_state_name(info.state));
		return kb_err_hint(err, "kbsup vm start %s", name);
	}
	if ((r = kb_vm_path(vm, path, err, "%s/machines/%s/host_key.pub", vm->state, name)) < 0 ||
		(r = kb_file_read(path, &key, err)) < 0 ||
		(r = kb_vm_ssh_files(vm, name, ret->key, known, err)) < 0)
		return r;
	snprintf(ret->host, sizeof(ret->host), "%s", info.host);
	snprintf(ret->user, sizeof(ret->user), "%s", info.user);
	ret->port = info.ssh_port;
	ret->ours = info.state != KB_VM_REMOTE;
	if (ret->ours)
		kb_run_touch(vm, info.id);
	snprintf(ret->host_key, sizeof(ret->host_key), "%.*s",
		(int)KB_MIN(kb_buf_len(&key), sizeof(ret->host_key) - 1),
		(const char *)kb_buf_data(&key));
	ret->host_key[strcspn(ret->host_key, "\r\n")] = '\0';
	return 0;
}
