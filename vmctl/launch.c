/* Bringing a machine up: by forking the template, booting its disk, or loading its saved memory.
 * All three end in kb_machine_go(), where it gets its identity before it gets a network. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agent.h"
#include "files.h"
#include "freeze.h"
#include "hostkey.h"
#include "machine.h"
#include "pool.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/os.h"

#define FORK_MS	     20000 /* until a fork answers; it takes a tenth of a second */
#define BOOT_MS	     240000
#define IDENTITY_MS  30000
#define OPEN_MS	     10000
#define PORT_TRIES   8
#define ENTROPY_SIZE 32
#define TEXT_MAX     8192

/* ---- a new machine's directory ---- */

static int random_hex(char *ret, size_t bytes, struct kb_err *err)
{
	uint8_t raw[64];

	if (kb_os_random(raw, bytes) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	for (size_t i = 0; i < bytes; i++)
		snprintf(ret + 2 * i, 3, "%02x", raw[i]);
	return 0;
}

static int new_mac(char ret[18], struct kb_err *err)
{
	uint8_t b[5];

	if (kb_os_random(b, sizeof(b)) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	/* Locally administered, not multicast. */
	snprintf(ret, 18, "02:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4]);
	return 0;
}

static int write_keys(const char *dir, const char *name, struct kb_err *err)
{
	KB_FREE char *private = NULL, *public = NULL;
	KB_FREE char *private_path = kb_asprintf("%s/host_key", dir);
	KB_FREE char *public_path = kb_asprintf("%s/host_key.pub", dir);
	int r;

	if (!private_path || !public_path)
		return kb_err_nomem(err);
	if ((r = kb_hostkey_new(name, &private, &public, err)) < 0 ||
		(r = kb_file_write_atomic(private_path, private, strlen(private), 0600, err)) < 0)
		return r;
	return kb_file_write_atomic(public_path, public, strlen(public), 0600, err);
}

static int new_manifest(
	struct kb_machine *m, const struct kb_machine_new *spec, json_t **ret, struct kb_err *err)
{
	char mac[18], machine_id[33];
	json_t *json;
	int r;

	if ((r = new_mac(mac, err)) < 0 || (r = random_hex(machine_id, 16, err)) < 0)
		return r;
	json = json_pack(
		"{s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:b, s:I, s:I, s:O, s:b, s:O?}",
		"name", m->name, "id", spec->id, "disk", spec->id, "base", m->base.name,
		"generation", (json_int_t)m->base.generation, "created_ns",
		(json_int_t)kb_now_real(), "user", kb_json_str(m->base.json, "user", ""), "mac",
		mac, "machine_id", machine_id, "isolated", spec->isolated, "memory_mib",
		(json_int_t)spec->memory_mib, "cpus", (json_int_t)spec->cpus, "words",
		(json_t *)spec->words, "ready", false, "layers", spec->layers);
	if (!json)
		return kb_err_nomem(err);
	if (spec->bridge)
		json_object_set_new(json, "bridge", json_string(spec->bridge));
	*ret = json;
	return 0;
}

int kb_machine_publish(struct kb_machine *m, const struct kb_machine_new *spec, const char *dir,
	struct kb_err *err)
{
	char path[PATH_MAX];
	int r;

	json_decref(m->json);
	m->json = NULL;
	if ((r = new_manifest(m, spec, &m->json, err)) < 0 ||
		(r = write_keys(dir, m->name, err)) < 0 ||
		(r = kb_vm_path(m->vm, path, err, "%s/machine.json", dir)) < 0 ||
		(r = kb_json_save(path, m->json, err)) < 0)
		return r;
	m->id = kb_json_str(m->json, "id", "");
	return kb_dir_publish(dir, m->dir, err);
}

int kb_machine_run(const struct kb_machine *m, struct kb_machine_paths *buf,
	struct kb_qemu_run *ret, struct kb_err *err)
{
	int r;

	if ((r = kb_vm_path(m->vm, buf->disk, err, "%s/disks/%s", m->vm->state,
		     kb_json_str(m->json, "disk", ""))) < 0 ||
		(r = kb_machine_path(m, "qemu.log", buf->log, err)) < 0 ||
		(r = kb_vm_path(m->vm, buf->kernel, err, "%s/vmlinuz", m->base.dir)) < 0 ||
		(r = kb_vm_path(m->vm, buf->initrd, err, "%s/initrd", m->base.dir)) < 0)
		return r;
	*ret = (struct kb_qemu_run){.arch = kb_json_str(m->base.json, "arch", NULL),
		.id = m->id,
		.log = buf->log,
		.kernel = buf->kernel,
		.initrd = buf->initrd,
		.disk = buf->disk,
		.mac = kb_json_str(m->json, "mac", ""),
		.bridge = json_string_value(json_object_get(m->json, "bridge")),
		.isolated = json_is_true(json_object_get(m->json, "isolated"))};
	return 0;
}

/* ---- network and identity ---- */

static unsigned free_port(void)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	KB_CLOSE int fd = kb_os_socket(AF_INET, SOCK_STREAM, 0, false);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return 0;
	return ntohs(addr.sin_port);
}

int kb_machine_forward(struct kb_mon *mon, unsigned *port, unsigned guest_port, struct kb_err *err)
{
	bool any = *port == 0;
	int r = -KB_ERR_FAILED;

	/* A port that is free now may be taken a moment later: then another one is tried. */
	for (int i = 0; i < (any ? PORT_TRIES : 1) && r < 0; i++) {
		if (any)
			*port = free_port();
		r = kb_mon_human(
			mon, err, "hostfwd_add n0 tcp:127.0.0.1:%u-:%u", *port, guest_port);
		if (r < 0 && r != -KB_ERR_FAILED)
			return r;
	}
	return r;
}

static int forward_ssh(struct kb_machine *m, struct kb_mon *mon, struct kb_err *err)
{
	unsigned port = (unsigned)kb_json_int(m->json, "port", 0);
	struct kb_err why;
	int r;

	if (json_object_get(m->json, "bridge"))
		return 0;
	/* The port it had, if nobody took it: people have it in their configuration. */
	r = port ? kb_machine_forward(mon, &port, 22, &why) : -KB_ERR_FAILED;
	if (r < 0 && r != -KB_ERR_FAILED && err)
		*err = why;
	if (r == -KB_ERR_FAILED) {
		port = 0;
		r = kb_machine_forward(mon, &port, 22, err);
	}
	if (r == 0)
		json_object_set_new(m->json, "port", json_integer((json_int_t)port));
	return r;
}

int kb_machine_client_key(
	struct kb_vmctl *vm, char ret_public[KB_CLIENT_KEY_MAX], struct kb_err *err)
{
	KB_FREE char *private = NULL, *public = NULL;
	struct kb_buf text KB_BUF_CLEANUP;
	char path[PATH_MAX], secret[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r;

	kb_buf_init(&text, KB_CLIENT_KEY_MAX - 1);
	if ((r = kb_vm_path(vm, path, err, "%s/client_key.pub", vm->state)) < 0 ||
		(r = kb_vm_path(vm, secret, err, "%s/client_key", vm->state)) < 0)
		return r;
	if (access(path, R_OK) < 0) {
		if ((r = kb_machine_gc_lock(vm, &lock, err)) < 0)
			return r;
		if (access(path, R_OK) < 0 &&
			((r = kb_hostkey_new("kbsup", &private, &public, err)) < 0 ||
				(r = kb_file_write_atomic(
					 secret, private, strlen(private), 0600, err)) < 0 ||
				(r = kb_file_write_atomic(
					 path, public, strlen(public), 0600, err)) < 0))
			return r;
	}
	r = kb_file_read(path, &text, err);
	if (r == 0)
		snprintf(ret_public, KB_CLIENT_KEY_MAX, "%.*s", (int)kb_buf_len(&text),
			(const char *)kb_buf_data(&text));
	return r;
}

static int add_file(json_t *request, const char *key, const struct kb_machine *m, const char *file,
	struct kb_err *err)
{
	struct kb_buf text KB_BUF_CLEANUP;
	char path[PATH_MAX];
	int r;

	kb_buf_init(&text, TEXT_MAX);
	if ((r = kb_machine_path(m, file, path, err)) < 0 ||
		(r = kb_file_read(path, &text, err)) < 0)
		return r;
	json_object_set_new(
		request, key, json_stringn((const char *)kb_buf_data(&text), kb_buf_len(&text)));
	return 0;
}

static void uuid_format(char ret[37], const char hex[33])
{
	snprintf(
		ret, 37, "%.8s-%.4s-4%.3s-a%.3s-%.12s", hex, hex + 8, hex + 13, hex + 17, hex + 20);
}

static int identity_request(struct kb_machine *m, json_t **ret, struct kb_err *err)
{
	char entropy[2 * ENTROPY_SIZE + 1], boot_hex[33], boot[37], key[KB_CLIENT_KEY_MAX];
	json_t *request;
	int r;

	if ((r = random_hex(entropy, ENTROPY_SIZE, err)) < 0 ||
		(r = random_hex(boot_hex, 16, err)) < 0 ||
		(r = kb_machine_client_key(m->vm, key, err)) < 0)
		return r;
	uuid_format(boot, boot_hex);
	request = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "op",
		"identity", "entropy", entropy, "machine_id",
		kb_json_str(m->json, "machine_id", ""), "boot_id", boot, "hostname", m->name,
		"authorized_key", key, "mac", kb_json_str(m->json, "mac", ""), "address",
		"10.0.2.15", "netmask", "255.255.255.0", "gateway", "10.0.2.2", "dns", "10.0.2.3",
		"dhcp", json_object_get(m->json, "bridge") != NULL);
	if (!request)
		return kb_err_nomem(err);
	if ((r = add_file(request, "host_key", m, "host_key", err)) < 0 ||
		(r = add_file(request, "host_key_pub", m, "host_key.pub", err)) < 0) {
		json_decref(request);
		return r;
	}
	*ret = request;
	return 0;
}

static int clock_request(json_t **ret, struct kb_err *err)
{
	char entropy[2 * ENTROPY_SIZE + 1];
	int r = random_hex(entropy, ENTROPY_SIZE, err);

	if (r < 0)
		return r;
	*ret = json_pack("{s:s, s:s}", "op", "clock", "entropy", entropy);
	return *ret ? 0 : kb_err_nomem(err);
}

static void log_times(const json_t *reply)
{
	const json_t *took = json_object_get(reply, "took_us");
	const char *step;
	json_t *us;

	json_object_foreach((json_t *)took, step, us)
		kb_log_debug("identity: %s took %lld us", step, (long long)json_integer_value(us));
}

int kb_machine_go(
	struct kb_machine *m, struct kb_mon *mon, int64_t wait_ms, bool same, struct kb_err *err)
{
	KB_JSON json_t *reply = NULL;
	struct kb_agent agent;
	json_t *request = NULL;
	int r;

	if ((r = forward_ssh(m, mon, err)) < 0 ||
		(r = same ? clock_request(&request, err) : identity_request(m, &request, err)) < 0)
		return r;
	/* Connected before it runs: a fork finds the host listening, as its template did. */
	r = kb_agent_open(m->vm, m->id, &agent, err);
	if (r < 0) {
		json_decref(request);
		return r;
	}
	r = kb_mon_call(mon, "cont", NULL, NULL, err);
	if (r == 0)
		r = kb_agent_sync(&agent, wait_ms, err);
	if (r == 0) {
		json_object_set_new(request, "time_ns", json_integer(kb_now_real()));
		r = kb_agent_call(&agent, KB_STEAL(request), IDENTITY_MS, &reply, err);
		log_times(reply);
	}
	json_decref(request);
	kb_agent_close(&agent);
	if (r < 0)
		return r;
	json_object_set_new(m->json, "ready", json_true());
	json_object_del(m->json, "idle_ms");
	return kb_machine_save(m, err);
}

/* ---- the three ways up ---- */

static void drop_memory(struct kb_machine *m, const char *which)
{
	char path[PATH_MAX];

	if (kb_machine_path(m, which, path, NULL) == 0)
		kb_rmtree(path, NULL);
}

int kb_machine_boot(struct kb_machine *m, struct kb_err *err)
{
	struct kb_machine_paths paths;
	struct kb_qemu_run run;
	struct kb_mon mon = {0};
	pid_t pid;
	int r;

	kb_op_progress(m->vm, "boot", "booting %s from its disk", m->name);
	drop_memory(m, "suspended");
	drop_memory(m, "memory");
	if ((r = kb_qemu_kill(m->vm, m->id, err)) < 0 ||
		(r = kb_machine_run(m, &paths, &run, err)) < 0 ||
		(r = kb_qemu_start(m->vm, json_object_get(m->json, "words"), &run, &pid, err)) < 0)
		return r;
	if ((r = kb_mon_open(m->vm, m->id, "qmp", pid, OPEN_MS, &mon, err)) == 0)
		r = kb_machine_go(m, &mon, BOOT_MS, false, err);
	kb_mon_close(&mon);
	return r;
}

static int thaw_and_go(struct kb_machine *m, const char *dir, bool same, struct kb_err *err)
{
	struct kb_machine_paths paths;
	struct kb_qemu_run run;
	struct kb_mon mon = {0};
	pid_t pid;
	int r;

	if ((r = kb_machine_run(m, &paths, &run, err)) < 0 ||
		(r = kb_thaw(
			 m->vm, json_object_get(m->json, "words"), dir, &run, &pid, &mon, err)) < 0)
		return r;
	if (same) {
		/* From here on its disk moves away from the saved memory, which is therefore no
		 * longer something to resume from, only what the process maps. */
		KB_FREE char *from = kb_asprintf("%s/suspended", m->dir);
		KB_FREE char *to = kb_asprintf("%s/memory", m->dir);

		if (!from || !to)
			r = kb_err_nomem(err);
		else if ((r = kb_rmtree(to, err)) == 0 && rename(from, to) < 0)
			r = kb_err_sys(err, errno, "%s", from);
	}
	if (r == 0)
		r = kb_machine_go(m, &mon, FORK_MS, same, err);
	kb_mon_close(&mon);
	return r;
}

int kb_machine_wake(struct kb_machine *m, struct kb_err *err)
{
	char dir[PATH_MAX];
	int r;

	kb_op_progress(m->vm, "resume", "loading the memory of %s", m->name);
	if ((r = kb_qemu_kill(m->vm, m->id, err)) < 0 ||
		(r = kb_machine_path(m, "suspended", dir, err)) < 0)
		return r;
	return thaw_and_go(m, dir, true, err);
}

static int fork_template(struct kb_machine *m, struct kb_err *err)
{
	char dir[PATH_MAX];
	int r = kb_vm_path(m->vm, dir, err, "%s/template", m->base.dir);

	kb_op_progress(m->vm, "fork", "forking %s from %s", m->name, m->base.name);
	return r < 0 ? r : thaw_and_go(m, dir, false, err);
}

/* ---- start ---- */

static int make_disk(struct kb_machine *m, const char *id, bool warm, struct kb_err *err)
{
	KB_FREE char *disk = kb_asprintf("%s/disks/%s", m->vm->state, id);
	KB_FREE char *clone = kb_asprintf("%s/template/clone.qcow2", m->base.dir);
	KB_FREE char *root = kb_asprintf("%s/root.img", m->base.dir);

	if (!disk || !clone || !root)
		return kb_err_nomem(err);
	if (warm)
		return kb_file_copy(clone, disk, 0600, err);
	return kb_qemu_overlay(m->vm, root, "raw", disk, err);
}

/* The words of a machine of this size: the base's own, or the same machine with other figures. */
static int words_for(const struct kb_machine *m, unsigned memory_mib, unsigned cpus, bool screen,
	json_t **ret, struct kb_err *err)
{
	struct kb_qemu_shape shape = {.arch = kb_json_str(m->base.json, "arch", NULL),
		.accel = kb_json_str(m->base.json, "accel", "tcg"),
		.firmware = json_is_true(json_object_get(m->base.json, "firmware")),
		.screen = screen,
		.memory_mib = memory_mib,
		.cpus = cpus};

	return kb_qemu_shape_words(&shape, ret, err);
}

/* Forks in the pool have user networking. */
static bool from_pool(
	struct kb_machine *m, const struct kb_vm_spec *spec, char dir[PATH_MAX], int *ret_lock)
{
	return !spec->isolated && !spec->bridge && kb_pool_take(m->vm, &m->base, dir, ret_lock);
}

static int create(struct kb_machine *m, const struct kb_vm_spec *spec, enum kb_vm_way *ret_way,
	struct kb_err *err)
{
	struct kb_machine_new made = {.isolated = spec->isolated, .bridge = spec->bridge};
	KB_JSON json_t *words = NULL;
	KB_CLOSE int lock = -1, gc = -1;
	char dir[PATH_MAX];
	unsigned memory, cpus;
	bool warm, taken;
	int r;

	/* While the base is looked up and the machine put in place, no generation is removed. */
	if ((r = kb_machine_gc_lock(m->vm, &gc, err)) < 0 ||
		(r = kb_base_current(m->vm, spec->base, &m->base, err)) < 0)
		return r;
	memory = (unsigned)kb_json_int(m->base.json, "memory_mib", KB_VM_MEMORY_MIB);
	cpus = (unsigned)kb_json_int(m->base.json, "cpus", KB_VM_CPUS);
	made.memory_mib = spec->memory_mib ? spec->memory_mib : memory;
	made.cpus = spec->cpus ? spec->cpus : cpus;
	warm = m->base.frozen && !spec->cold && !spec->screen && made.memory_mib == memory &&
	       made.cpus == cpus;
	taken = warm && from_pool(m, spec, dir, &lock);
	*ret_way = taken ? KB_VM_TAKEN : warm ? KB_VM_FORKED : KB_VM_BOOTED;
	if (!taken && (r = kb_tmp_create(m->vm, dir, &lock, err)) < 0)
		return r;
	made.id = kb_tmp_id(dir);
	if ((r = words_for(m, made.memory_mib, made.cpus, spec->screen, &words, err)) == 0) {
		/* A base of an older kbsup keeps its own words. */
		made.words = warm ? m->base.words : words;
		r = taken ? 0 : make_disk(m, made.id, warm, err);
	}
	if (r == 0)
		r = kb_machine_publish(m, &made, dir, err);
	if (r < 0)
		kb_rmtree(dir, NULL);
	return r;
}

/* It waits, paused. One that does not go on is replaced by a fork of its own. */
static int name_taken(struct kb_machine *m, enum kb_vm_way *ret_way, struct kb_err *err)
{
	char disk[PATH_MAX];
	struct kb_mon mon = {0};
	struct kb_err why = {0};
	int r;

	kb_op_progress(m->vm, "fork", "taking a fork of %s for %s", m->base.name, m->name);
	r = kb_mon_open(m->vm, m->id, "qmp", 0, OPEN_MS, &mon, &why);
	if (r == 0)
		r = kb_machine_go(m, &mon, FORK_MS, false, &why);
	kb_mon_close(&mon);
	if (r == 0)
		return 0;
	if (m->vm->cancelled) {
		if (err)
			*err = why;
		return r;
	}
	*ret_way = KB_VM_FORKED;
	kb_op_progress(m->vm, "fork", "it does not go on: %s", why.msg);
	if ((r = kb_qemu_kill(m->vm, m->id, err)) < 0 ||
		(r = kb_vm_path(m->vm, disk, err, "%s/disks/%s", m->vm->state, m->id)) < 0)
		return r;
	unlink(disk);
	r = make_disk(m, m->id, true, err);
	return r < 0 ? r : fork_template(m, err);
}

static int start_new(struct kb_machine *m, const struct kb_vm_spec *spec, enum kb_vm_way *ret_way,
	struct kb_err *err)
{
	int r = create(m, spec, ret_way, err);

	if (r < 0)
		return r;
	json_object_set_new(m->json, "forked", json_boolean(*ret_way != KB_VM_BOOTED));
	r = *ret_way == KB_VM_BOOTED  ? kb_machine_boot(m, err)
	    : *ret_way == KB_VM_TAKEN ? name_taken(m, ret_way, err)
				      : fork_template(m, err);
	if (r < 0) {
		m->vm->shielded++;
		kb_machine_remove(m, NULL);
		m->vm->shielded--;
	}
	return r;
}

static int let_go_on(struct kb_machine *m, struct kb_err *err)
{
	struct kb_mon mon = {0};
	int r = kb_mon_open(m->vm, m->id, "qmp", 0, OPEN_MS, &mon, err);

	if (r == 0) {
		kb_migrate_cancel(&mon);
		r = kb_machine_go(m, &mon, FORK_MS, true, err);
	}
	kb_mon_close(&mon);
	return r;
}

/* A machine gets its screen where it boots: what is saved or runs has none to draw on. */
static int need_screen(struct kb_machine *m, bool boots, struct kb_err *err)
{
	json_t *words;
	int r;

	if (kb_qemu_has_screen(json_object_get(m->json, "words")))
		return 0;
	if (!boots) {
		kb_err_set(err, KB_ERR_REFUSED, "machine %s was started without a screen", m->name);
		return kb_err_hint(err,
			"stop it, then start it with one: kbsup vm stop %s; kbsup vm start %s "
			"--gui",
			m->name, m->name);
	}
	r = words_for(m, (unsigned)kb_json_int(m->json, "memory_mib", KB_VM_MEMORY_MIB),
		(unsigned)kb_json_int(m->json, "cpus", KB_VM_CPUS), true, &words, err);
	if (r == 0 && json_object_set_new(m->json, "words", words) < 0)
		r = kb_err_nomem(err);
	return r;
}

static int start_existing(struct kb_machine *m, const struct kb_vm_spec *spec,
	enum kb_vm_way *ret_way, struct kb_err *err)
{
	enum kb_vm_state state = kb_machine_state(m->vm, m->json, m->dir);
	bool saved = kb_machine_has(m, "suspended");
	bool boots = state == KB_VM_STOPPED || state == KB_VM_CRASHED ||
		     (state == KB_VM_SUSPENDED && spec->cold);
	int r = spec->screen ? need_screen(m, boots, err) : 0;

	if (r < 0)
		return r;
	*ret_way = KB_VM_RESUMED;
	switch (state) {
	case KB_VM_RUNNING:
		*ret_way = KB_VM_RAN;
		return 0;
	case KB_VM_PAUSED:
	case KB_VM_NO_SPACE:
		/* With memory saved: a finished suspend whose process was not ended any more. */
		return saved ? kb_machine_wake(m, err) : let_go_on(m, err);
	case KB_VM_SUSPENDED:
		if (!spec->cold)
			return kb_machine_wake(m, err);
		break;
	case KB_VM_STOPPED:
	case KB_VM_CRASHED:
		break;
	default:
		kb_err_set(
			err, KB_ERR_FAILED, "machine %s is %s", m->name, kb_vm_state_name(state));
		return kb_err_hint(err, "stop it first: kbsup vm stop %s", m->name);
	}
	*ret_way = KB_VM_BOOTED;
	return kb_machine_boot(m, err);
}

int kb_vm_start(struct kb_vmctl *vm, const struct kb_vm_spec *spec, struct kb_vm_info *ret,
	struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	enum kb_vm_way way = KB_VM_RAN;
	int64_t start = kb_now_mono();
	int r = kb_vmctl_collect_garbage(vm, err);

	if (r == 0)
		r = kb_machine_claim(vm, spec->name, &m, err);
	if (r == 0)
		r = kb_machine_refuse_remote(&m, err);
	/* Nobody but us works on it, so an unfinished one is an interrupted creation. */
	if (r == 0 && m.json && !json_is_true(json_object_get(m.json, "ready"))) {
		kb_op_progress(
			vm, "clean", "removing what an interrupted start left of %s", m.name);
		r = kb_machine_remove(&m, err);
		kb_machine_finish(&m);
		if (r == 0)
			r = kb_machine_claim(vm, spec->name, &m, err);
	}
	if (r == 0)
		r = m.json ? start_existing(&m, spec, &way, err) : start_new(&m, spec, &way, err);
	if (r == 0)
		kb_run_touch(vm, m.id);
	if (r == 0)
		r = kb_machine_info(vm, m.json, m.dir, ret, err);
	if (r < 0)
		return r;
	ret->took_ns = kb_now_mono() - start;
	ret->way = way;
	return 0;
}
