#include "supervisor/guest/oci.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/util.h"
#include "supervisor/guest/rootfs.h"

#define CPU_PERIOD_US 100000

/* The runtimes' own defaults (runc spec, crun spec): what /proc has that is the machine's business.
 */
static const char *const masked_paths[] = {"/proc/acpi", "/proc/asound", "/proc/kcore",
	"/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/kallsyms", "/proc/kmsg", "/sys/firmware",
	"/sys/devices/virtual/powercap"};
static const char *const readonly_paths[] = {
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
static const char *const namespaces[] = {"pid", "network", "ipc", "uts", "mount", "cgroup", "user"};

static json_t *string_array(const char *const *strings, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, json_string(strings[i]));
	return array;
}

static void add_mount(json_t *mounts, const char *type, const char *source, const char *destination,
	const char *const *options, size_t n_options)
{
	json_array_append_new(mounts,
		json_pack("{s:s,s:s,s:s,s:o}", "type", type, "source", source, "destination",
			destination, "options", string_array(options, n_options)));
}

static json_t *make_mounts(const struct kb_oci_spec *spec)
{
	static const char *const plain[] = {"nosuid", "noexec", "nodev"};
	static const char *const readonly[] = {"nosuid", "noexec", "nodev", "ro"};
	static const char *const bind[] = {"rbind"};
	static const char *const pts[] = {
		"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"};
	json_t *mounts = json_array();

	add_mount(mounts, "proc", "proc", "/proc", plain, KB_ARRAY_LEN(plain));
	/* That /dev is a mount of ours keeps the runtime from making one. Relative to the bundle.
	 */
	add_mount(mounts, "bind", "rootfs/dev", "/dev", bind, KB_ARRAY_LEN(bind));
	add_mount(mounts, "devpts", "devpts", "/dev/pts", pts, KB_ARRAY_LEN(pts));
	if (spec->sysfs)
		add_mount(mounts, "sysfs", "sysfs", "/sys", readonly, KB_ARRAY_LEN(readonly));
	return mounts;
}

/* The container's root is whoever runs the session, and nobody else is mapped: 0 is that user, for
 * the machine's root as in the user namespace an ordinary user's session is in. */
static json_t *make_mapping(void)
{
	return json_pack("[{s:i,s:i,s:i}]", "containerID", 0, "hostID", 0, "size", 1);
}

static json_t *make_namespaces(void)
{
	json_t *array = json_array();

	for (size_t i = 0; i < KB_ARRAY_LEN(namespaces); i++)
		json_array_append_new(array, json_pack("{s:s}", "type", namespaces[i]));
	return array;
}

static json_t *make_resources(const struct kb_oci_spec *spec)
{
	json_t *resources = json_object();

	if (spec->memory)
		json_object_set_new(
			resources, "memory", json_pack("{s:I}", "limit", (json_int_t)spec->memory));
	if (spec->memory && spec->swap)
		json_object_set_new(json_object_get(resources, "memory"), "swap",
			json_integer((json_int_t)spec->memory));
	if (spec->pids)
		json_object_set_new(
			resources, "pids", json_pack("{s:I}", "limit", (json_int_t)spec->pids));
	if (spec->cpu)
		json_object_set_new(resources, "cpu",
			json_pack("{s:I,s:i}", "quota",
				(json_int_t)(spec->cpu * CPU_PERIOD_US / 1000), "period",
				CPU_PERIOD_US));
	return resources;
}

/* kbsup-init keeps one capability, for one purpose: mapping its own user 0 into a namespace of a
 * process it starts (verify_root_map() in kernel/user_namespace.c). Those processes keep none. */
static json_t *make_process(void)
{
	static const char setfcap[] = "CAP_SETFCAP";

	return json_pack("{s:b,s:{s:i,s:i},s:[s],s:[s],s:s,s:b,s:{s:[s],s:[s],s:[],s:[s],s:[]}}",
		"terminal", 0, "user", "uid", 0, "gid", 0, "args", KB_ROOTFS_INIT, "env",
		"PATH=/usr/bin", "cwd", "/", "noNewPrivileges", 1, "capabilities", "bounding",
		setfcap, "effective", setfcap, "inheritable", "permitted", setfcap, "ambient");
}

static json_t *make_linux(const struct kb_oci_spec *spec)
{
	json_t *part = json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "namespaces", make_namespaces(),
		"uidMappings", make_mapping(), "gidMappings", make_mapping(), "resources",
		make_resources(spec), "maskedPaths",
		string_array(masked_paths, KB_ARRAY_LEN(masked_paths)), "readonlyPaths",
		string_array(readonly_paths, KB_ARRAY_LEN(readonly_paths)));

	if (spec->cgroup)
		json_object_set_new(part, "cgroupsPath", json_string(spec->cgroup));
	return part;
}

int kb_oci_config(const struct kb_oci_spec *spec, struct kb_buf *out, struct kb_err *err)
{
	json_t *config = json_pack("{s:s,s:o,s:{s:s,s:b},s:s,s:o,s:o}", "ociVersion", "1.0.2",
		"process", make_process(), "root", "path", "rootfs", "readonly", 0, "hostname",
		spec->hostname, "mounts", make_mounts(spec), "linux", make_linux(spec));
	KB_FREE char *text = config ? json_dumps(config, JSON_COMPACT) : NULL;

	json_decref(config);
	return text ? kb_buf_append(out, text, strlen(text), err) : kb_err_nomem(err);
}
