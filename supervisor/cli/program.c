/* Which files a command is made of.
 *
 * Every step from the name to the bytes that run is followed: the entry in the PATH, each symbolic
 * link, the interpreter of a "#!" line. Each file found stands for a place:
 *
 *	…/node_modules/…	the outermost node_modules: a package's dependencies are beside it
 *	PREFIX/bin/NAME		PREFIX/bin and PREFIX/lib: what nvm, npm, pyenv, virtualenv
 *				and uv make
 *	anything else		the file alone
 *
 * PREFIX itself is not given: beside bin and lib many keep caches and credentials there.
 */
#include "program.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "supervisor/base/util.h"

#define LINKS_MAX	 16
#define INTERPRETERS_MAX 4
#define SHEBANG_MAX	 256

/* Part of every session (the base policy gives them), and in the PATH it gets. */
static const char *const usual[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
static const char *const readable[] = {"/opt", "/nix"};
static const char *const usual_dirs[] = {
	"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};

struct search {
	struct kb_program_needs *needs;
	const struct kb_program_where *where;
};

static bool beneath(const char *dir, const char *path)
{
	size_t len = strlen(dir);

	return !strncmp(dir, path, len) && (!path[len] || path[len] == '/');
}

static bool in_list(const char *const *list, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++)
		if (beneath(list[i], path))
			return true;
	return false;
}

static bool is_there_already(const struct search *s, const char *path)
{
	return in_list(usual, KB_ARRAY_LEN(usual), path) ||
	       in_list(readable, KB_ARRAY_LEN(readable), path) ||
	       (s->where->workspace && beneath(s->where->workspace, path));
}

/* Keeps the list free of paths that lie in each other. */
static int add_path(const struct search *s, const char *path, struct kb_err *err)
{
	struct kb_program_needs *needs = s->needs;
	size_t out = 0;

	if (is_there_already(s, path))
		return 0;
	for (size_t i = 0; i < needs->n_paths; i++)
		if (beneath(needs->paths[i], path))
			return 0;
	for (size_t i = 0; i < needs->n_paths; i++) {
		if (beneath(path, needs->paths[i]))
			free(needs->paths[i]);
		else
			needs->paths[out++] = needs->paths[i];
	}
	needs->n_paths = out;
	if (out == KB_PROGRAM_PATHS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the command is made of more than %d places",
			KB_PROGRAM_PATHS_MAX);
	needs->paths[needs->n_paths++] = kb_xstrdup(path);
	needs->paths[needs->n_paths] = NULL;
	return 0;
}

static int add_dir(const struct search *s, const char *dir, struct kb_err *err)
{
	struct kb_program_needs *needs = s->needs;

	for (size_t i = 0; i < KB_ARRAY_LEN(usual_dirs); i++)
		if (!strcmp(usual_dirs[i], dir))
			return 0;
	for (size_t i = 0; i < needs->n_dirs; i++)
		if (!strcmp(needs->dirs[i], dir))
			return 0;
	if (needs->n_dirs == KB_PROGRAM_PATHS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the command needs more than %d directories",
			KB_PROGRAM_PATHS_MAX);
	needs->dirs[needs->n_dirs++] = kb_xstrdup(dir);
	needs->dirs[needs->n_dirs] = NULL;
	return 0;
}

/* PREFIX/bin, and PREFIX/lib and pyvenv.cfg where they are. */
static int add_prefix(const struct search *s, const char *dir, struct kb_err *err)
{
	static const char *const beside[] = {"lib", "pyvenv.cfg"};
	int prefix = (int)(strrchr(dir, '/') - dir);
	int r = add_path(s, dir, err);

	for (size_t i = 0; i < KB_ARRAY_LEN(beside) && r == 0; i++) {
		char *path KB_FREE = kb_xprintf("%.*s/%s", prefix, dir, beside[i]);

		if (access(path, F_OK) == 0)
			r = add_path(s, path, err);
	}
	return r;
}

/* path: absolute, its directory without symbolic links. */
static int add_place(const struct search *s, const char *path, struct kb_err *err)
{
	const char *modules = strstr(path, "/node_modules/"), *slash = strrchr(path, '/');
	char *dir KB_FREE = NULL;

	if (modules) {
		dir = kb_xprintf("%.*s/node_modules", (int)(modules - path), path);
		return add_path(s, dir, err);
	}
	dir = kb_xprintf("%.*s", (int)(slash - path), path);
	if (strlen(dir) > 4 && !strcmp(dir + strlen(dir) - 4, "/bin") &&
		!beneath(dir, s->where->home))
		return add_prefix(s, dir, err);
	return add_path(s, path, err);
}

/* The path with its directory's symbolic links resolved; the last component stays a link. */
static bool resolve_dir(const char *path, char ret[PATH_MAX])
{
	char dir[PATH_MAX], real[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int n = snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);

	if (n < 0 || n >= PATH_MAX || !realpath(dir, real))
		return false;
	n = snprintf(ret, PATH_MAX, "%s/%s", strcmp(real, "/") ? real : "", slash + 1);
	return n > 0 && n < PATH_MAX;
}

/* What the link at path points to, in *path; false when it is no link. */
static bool follow_link(char path[PATH_MAX])
{
	char text[PATH_MAX], joined[PATH_MAX];
	ssize_t len = readlink(path, text, sizeof(text) - 1);
	int n;

	if (len <= 0)
		return false;
	text[len] = '\0';
	n = text[0] == '/' ? snprintf(joined, sizeof(joined), "%s", text)
			   : snprintf(joined, sizeof(joined), "%.*s/%s",
				     (int)(strrchr(path, '/') - path), path, text);
	return n > 0 && n < PATH_MAX && resolve_dir(joined, path);
}

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* In the PATH; its relative entries do not count. */
static bool look_up(const struct search *s, const char *name, char ret[PATH_MAX])
{
	const char *at = s->where->path ? s->where->path : "";

	while (*at) {
		size_t len = strcspn(at, ":");
		char path[PATH_MAX];
		int n = snprintf(path, sizeof(path), "%.*s/%s", (int)len, at, name);

		if (len && at[0] == '/' && n < PATH_MAX && is_program(path))
			return resolve_dir(path, ret);
		at += len + (at[len] == ':');
	}
	return false;
}

static int add_program(
	const struct search *s, const char *name, unsigned depth, struct kb_err *err);

/* "#! INTERPRETER [ARGUMENT]"; env's argument is the interpreter that counts. */
static int add_interpreter(
	const struct search *s, const char *path, unsigned depth, struct kb_err *err)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char line[SHEBANG_MAX], *word, *save = NULL;
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	int r;

	if (n < 2 || memcmp(line, "#!", 2) != 0)
		return 0;
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	word = strtok_r(line + 2, " \t", &save);
	if (!word)
		return 0;
	r = add_program(s, word, depth + 1, err);
	if (r < 0 || !strrchr(word, '/') || strcmp(strrchr(word, '/'), "/env"))
		return r < 0 ? r : 0;
	do
		word = strtok_r(NULL, " \t", &save);
	while (word && (word[0] == '-' || strchr(word, '=')));
	r = word ? add_program(s, word, depth + 1, err) : 0;
	return r < 0 ? r : 0;
}

static int add_program(const struct search *s, const char *name, unsigned depth, struct kb_err *err)
{
	char path[PATH_MAX];
	bool by_name = !strchr(name, '/');
	int r = 0;

	if (depth > INTERPRETERS_MAX)
		return 1;
	if (by_name ? !look_up(s, name, path)
		    : name[0] != '/' || !is_program(name) || !resolve_dir(name, path))
		return 1;
	if (by_name) {
		char *dir KB_FREE = kb_xprintf("%.*s", (int)(strrchr(path, '/') - path), path);

		r = add_dir(s, dir, err);
	}
	for (int i = 0; i < LINKS_MAX && r == 0; i++) {
		r = add_place(s, path, err);
		if (!follow_link(path))
			break;
	}
	return r < 0 ? r : add_interpreter(s, path, depth, err);
}

int kb_program_needs_add(struct kb_program_needs *needs, const struct kb_program_where *where,
	const char *command, struct kb_err *err)
{
	struct search s = {.needs = needs, .where = where};

	return add_program(&s, command, 0, err);
}

void kb_program_needs_finish(struct kb_program_needs *needs)
{
	for (size_t i = 0; i < needs->n_paths; i++)
		free(needs->paths[i]);
	for (size_t i = 0; i < needs->n_dirs; i++)
		free(needs->dirs[i]);
	*needs = (struct kb_program_needs){0};
}
