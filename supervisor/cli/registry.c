#include "registry.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli.h"
#include "policy/policy.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define FILE_MAX   (256u << 10)
#define ANSWER_MAX 4096
#define ASK_MS	   20000

/* The kinds, and where each looks, in order of precedence. A place with '*' is a pattern; ~ is the
 * home directory, + the directory of the user's configuration, ${NAME} a variable's value. */
static const struct {
	const char *kind;
	const char *variables[3]; /* NAME=KEY: the value counts as that key's */
	const char *files[8];
	bool all;	     /* every file counts, not the first that says it all */
	const char *ask[5];  /* a program that knows, when no file does */
	const char *ask_key; /* of what it prints, word by word */
	const char *remedy;
} places[] = {
	{.kind = "@npm-registry",
		.variables = {"npm_config_registry=registry", "NPM_CONFIG_REGISTRY=registry"},
		.files = {"${NPM_CONFIG_USERCONFIG}", "~/.npmrc", "/etc/npmrc", "/usr/etc/npmrc",
			"/usr/local/etc/npmrc"},
		.ask = {"npm", "config", "get", "registry"},
		.ask_key = "registry",
		.remedy = "install npm, or say which they are: hosts @npm-registry \"host:443\""},
	{.kind = "@pip-index",
		.variables = {"PIP_INDEX_URL=index-url", "PIP_EXTRA_INDEX_URL=extra-index-url",
			"UV_DEFAULT_INDEX=index-url"},
		.files = {"${PIP_CONFIG_FILE}", "${VIRTUAL_ENV}/pip.conf", "+/pip/pip.conf",
			"~/.pip/pip.conf", "/etc/pip.conf", "/etc/xdg/pip/pip.conf"},
		.ask = {"python3", "-c",
			"from pip._internal.models.index import PyPI as p;"
			"print(p.simple_url, 'https://' + p.file_storage_domain)"},
		.ask_key = "index-url",
		.remedy = "install pip, or say which they are: hosts @pip-index \"host:443\""},
	{.kind = "@cargo-registry",
		.files = {"${CARGO_HOME}/config.toml", "~/.cargo/config.toml", "~/.cargo/config"},
		.remedy = "name the registry in ~/.cargo/config.toml, or say which they are: "
			  "hosts @cargo-registry \"host:443\""},
	{.kind = "@apt-mirror",
		.files = {"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list",
			"/etc/apt/sources.list.d/*.sources"},
		.all = true,
		.remedy = "name them in /etc/apt/sources.list, or say which they are: "
			  "hosts @apt-mirror \"host:80\""},
	{.kind = "@go-proxy",
		.variables = {"GOPROXY=goproxy", "GOSUMDB=gosumdb"},
		.files = {"${GOENV}", "+/go/env", "${GOROOT}/go.env", "/usr/local/go/go.env",
			"/usr/lib/go/go.env"},
		.ask = {"go", "env", "GOPROXY", "GOSUMDB"},
		.ask_key = "goproxy",
		.remedy = "install go, or say which they are: hosts @go-proxy \"host:443\""},
};

/* ---- Variables and files --------------------------------------------------------------------- */

static void scan_as(
	const char *kind, const char *key, const char *value, struct kb_registry_hosts *hosts)
{
	char *line KB_FREE = kb_xprintf("%s=%s", key, value);

	for (char *p = line; *p; p++)
		if (*p == '\n')
			*p = ' ';
	kb_registry_scan(kind, line, hosts);
}

static void read_variables(size_t k, struct kb_registry_hosts *hosts, char from[PATH_MAX])
{
	for (size_t i = 0; i < KB_ARRAY_LEN(places[k].variables) && places[k].variables[i]; i++) {
		const char *key = strchr(places[k].variables[i], '=') + 1, *value;
		char *name KB_FREE = kb_xprintf(
			"%.*s", (int)(key - 1 - places[k].variables[i]), places[k].variables[i]);

		value = getenv(name);
		if (!value || !*value)
			continue;
		scan_as(places[k].kind, key, value, hosts);
		snprintf(from, PATH_MAX, "%s", name);
	}
}

static char *expand(const struct kb_registries *rs, const char *place)
{
	const char *end = place[0] == '$' ? strchr(place, '}') : NULL, *value;
	char *name KB_FREE = NULL;

	if (place[0] == '~')
		return kb_xprintf("%s%s", rs->home, place + 1);
	if (place[0] == '+')
		return kb_xprintf("%s%s", rs->config, place + 1);
	if (!end)
		return kb_xstrdup(place);
	name = kb_xprintf("%.*s", (int)(end - place) - 2, place + 2);
	value = getenv(name);
	return value && value[0] == '/' ? kb_xprintf("%s%s", value, end + 1) : NULL;
}

/* Plain files alone: a pipe would hold us up. */
static void read_file(
	size_t k, const char *path, struct kb_registry_hosts *hosts, char from[PATH_MAX])
{
	struct kb_buf text KB_BUF_CLEANUP;
	size_t before = hosts->n;
	struct stat st;

	kb_buf_init(&text, FILE_MAX + 1);
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || kb_file_read(path, &text, NULL) < 0 ||
		kb_buf_append(&text, "", 1, NULL) < 0)
		return;
	kb_registry_scan(places[k].kind, (const char *)kb_buf_data(&text), hosts);
	if (hosts->n > before)
		snprintf(from, PATH_MAX, "%s", path);
}

static void read_files(const struct kb_registries *rs, size_t k, struct kb_registry_hosts *hosts,
	char from[PATH_MAX])
{
	for (size_t i = 0; i < KB_ARRAY_LEN(places[k].files) && places[k].files[i]; i++) {
		char *path KB_FREE = expand(rs, places[k].files[i]);
		glob_t found = {0};

		if (!path || (hosts->complete && !places[k].all))
			continue;
		if (!strchr(places[k].files[i], '*'))
			read_file(k, path, hosts, from);
		else if (glob(path, GLOB_NOSORT, NULL, &found) == 0)
			for (size_t g = 0; g < found.gl_pathc; g++)
				read_file(k, found.gl_pathv[g], hosts, from);
		globfree(&found);
	}
}

/* ---- Asking the program ---------------------------------------------------------------------- */

static bool find_in_path(const char *name, char ret[PATH_MAX])
{
	const char *at = getenv("PATH");

	while (at && *at) {
		size_t len = strcspn(at, ":");
		int n = snprintf(ret, PATH_MAX, "%.*s/%s", (int)len, at, name);

		if (at[0] == '/' && n < PATH_MAX && access(ret, X_OK) == 0)
			return true;
		at += len + (at[len] == ':');
	}
	return false;
}

/* What it prints, within ASK_MS; away from the workspace, whose files must not answer. */
static bool run_program(size_t k, const char *path, char ret[ANSWER_MAX])
{
	int out[2], status = 0;
	struct kb_spawn spawn = {.path = path,
		.argv = places[k].ask,
		.env = (const char *const *)environ,
		.cwd = "/",
		.n_fds = 1};
	struct kb_spawn_fd fd;
	int64_t end = kb_now_mono() + ASK_MS * 1000000ll;
	size_t len = 0;
	ssize_t n = 0;
	pid_t pid;

	if (kb_os_pipe(out, false) < 0)
		return false;
	fd = (struct kb_spawn_fd){.from = out[1], .to = 1};
	spawn.fds = &fd;
	if (kb_spawn(&spawn, &pid, NULL) < 0) {
		close(out[0]);
		close(out[1]);
		return false;
	}
	close(out[1]);
	for (;;) {
		struct pollfd p = {.fd = out[0], .events = POLLIN};
		int64_t left = (end - kb_now_mono()) / 1000000;

		if (left <= 0 || poll(&p, 1, (int)left) <= 0 || len == ANSWER_MAX - 1)
			break;
		n = read(out[0], ret + len, ANSWER_MAX - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close(out[0]);
	if (n != 0 || len == 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ret[len] = '\0';
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 && len > 0;
}

/* "PATH MTIME\n" and what the program said: asking npm takes half a second. */
static void ask(const struct kb_registries *rs, size_t k, struct kb_registry_hosts *hosts,
	char from[PATH_MAX])
{
	struct kb_buf known KB_BUF_CLEANUP;
	char path[PATH_MAX], answer[ANSWER_MAX];
	char *file KB_FREE = kb_xprintf("%s/%s", rs->cache, places[k].kind + 1);
	char *stamp KB_FREE = NULL, *text KB_FREE = NULL;
	struct stat st;

	kb_buf_init(&known, PATH_MAX + ANSWER_MAX + 64);
	if (!places[k].ask[0] || !find_in_path(places[k].ask[0], path) || stat(path, &st) < 0)
		return;
	stamp = kb_xprintf("%s %lld\n", path, (long long)st.st_mtime);
	if (kb_file_read(file, &known, NULL) == 0 && kb_buf_len(&known) > strlen(stamp) &&
		!memcmp(kb_buf_data(&known), stamp, strlen(stamp))) {
		text = kb_xprintf("%.*s", (int)(kb_buf_len(&known) - strlen(stamp)),
			(const char *)kb_buf_data(&known) + strlen(stamp));
	} else if (run_program(k, path, answer)) {
		char *whole KB_FREE = kb_xprintf("%s%s", stamp, answer);

		text = kb_xstrdup(answer);
		if (kb_dirs_make(rs->cache, NULL) == 0)
			(void)kb_file_write_atomic(file, whole, strlen(whole), 0600, NULL);
	}
	if (!text)
		return;
	scan_as(places[k].kind, places[k].ask_key, text, hosts);
	snprintf(from, PATH_MAX, "%s %s", places[k].ask[0],
		strcmp(places[k].ask[0], "python3") ? places[k].ask[1] : "(pip)");
}

void kb_registries_init(struct kb_registries *rs, const struct kb_dirs *dirs)
{
	const char *slash = strrchr(dirs->config, '/');

	*rs = (struct kb_registries){0};
	snprintf(rs->home, sizeof(rs->home), "%s", dirs->home);
	snprintf(rs->config, sizeof(rs->config), "%.*s", (int)(slash - dirs->config), dirs->config);
	if (snprintf(rs->cache, sizeof(rs->cache), "%s/registries", dirs->state) >= PATH_MAX)
		rs->cache[0] = '\0';
}

/* ---- Answering ------------------------------------------------------------------------------- */

static int find_kind(const char *group)
{
	for (size_t k = 0; k < KB_ARRAY_LEN(places); k++)
		if (!strcmp(places[k].kind, group))
			return (int)k;
	return -1;
}

static void look(struct kb_registries *rs, size_t k)
{
	struct kb_registry_hosts *hosts = &rs->kinds[k].hosts;
	char *from = rs->kinds[k].from;

	if (rs->kinds[k].asked)
		return;
	rs->kinds[k].asked = true;
	read_variables(k, hosts, from);
	if (!hosts->complete)
		read_files(rs, k, hosts, from);
	if (!hosts->complete)
		ask(rs, k, hosts, from);
}

const char *const *kb_registries_find(void *arg, const char *group, const char **ret_why)
{
	struct kb_registries *rs = arg;
	int k = find_kind(group);

	*ret_why = NULL;
	if (k < 0)
		return NULL;
	look(rs, (size_t)k);
	if (rs->kinds[k].hosts.n)
		return (const char *const *)rs->kinds[k].hosts.hosts;
	*ret_why = places[k].remedy;
	return NULL;
}

const char *kb_registries_from(struct kb_registries *rs, const char *group)
{
	int k = find_kind(group);

	return k >= 0 && rs->kinds[k].hosts.n ? rs->kinds[k].from : "";
}

void kb_registries_finish(struct kb_registries *rs)
{
	for (size_t k = 0; k < KB_ARRAY_LEN(rs->kinds); k++)
		kb_registry_hosts_finish(&rs->kinds[k].hosts);
}
