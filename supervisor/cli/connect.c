#include "connect.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "supervisor/base/fd.h"

#define ANSWER_MAX (64u << 20)

static int connect_how(struct kb_connection *connection, unsigned flags, struct kb_err *err)
{
	int r = 0;

	signal(SIGPIPE, SIG_IGN);
	if (!connection->loop)
		r = kb_loop_create(&connection->loop, err);
	if (r < 0)
		return r;
	return kb_client_open(connection->loop, flags, &connection->client, err);
}

int kb_connect(struct kb_connection *connection, bool start, struct kb_err *err)
{
	return connect_how(connection, start ? KB_CLIENT_START : 0, err);
}

static int connect_running(
	struct kb_connection *connection, unsigned flags, bool *ret_running, struct kb_err *err)
{
	struct kb_err why = {0};
	int r = connect_how(connection, flags, &why);

	*ret_running = r == 0;
	if (r == -KB_ERR_UNREACHABLE && (why.errnum == ENOENT || why.errnum == ECONNREFUSED))
		return 0;
	if (r < 0 && err)
		*err = why;
	return r;
}

int kb_connect_running(struct kb_connection *connection, bool *ret_running, struct kb_err *err)
{
	return connect_running(connection, 0, ret_running, err);
}

void kb_connection_finish(struct kb_connection *connection)
{
	kb_client_close(connection->client);
	kb_loop_destroy(connection->loop);
	*connection = (struct kb_connection){0};
}

/* ---- Sessions -------------------------------------------------------------------------------- */

int kb_sessions_read(
	struct kb_sessions *sessions, struct kb_connection *connection, struct kb_err *err)
{
	*sessions = (struct kb_sessions){0};
	return kb_client_sessions(connection->client, &sessions->list, &sessions->len, err);
}

void kb_sessions_finish(struct kb_sessions *sessions)
{
	for (size_t i = 0; i < sessions->len; i++)
		kb_session_finish(&sessions->list[i]);
	free(sessions->list);
	*sessions = (struct kb_sessions){0};
}

json_t *kb_sessions_by_machine(void)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_sessions sessions KB_SESSIONS_CLEANUP = {0};
	json_t *counts = json_object();
	bool running = false;

	if (connect_running(&connection, KB_CLIENT_HURRY, &running, NULL) < 0 ||
		(running && kb_sessions_read(&sessions, &connection, NULL) < 0)) {
		json_decref(counts);
		return NULL;
	}
	for (size_t i = 0; i < sessions.len; i++) {
		const char *machine = sessions.list[i].machine;
		json_int_t n = json_integer_value(json_object_get(counts, machine));

		json_object_set_new(counts, machine, json_integer(n + 1));
	}
	return counts;
}

const struct kb_session *kb_session_find(
	const struct kb_session *sessions, size_t n, const char *name)
{
	if (!strcmp(name, "last"))
		return n ? &sessions[n - 1] : NULL;
	for (size_t i = 0; i < n; i++)
		if (!strcmp(sessions[i].name, name) || !strcmp(sessions[i].id, name))
			return &sessions[i];
	return NULL;
}

static int no_such_session(const struct kb_sessions *sessions, const char *name, struct kb_err *err)
{
	const char **names = kb_xcalloc(sessions->len + 1, sizeof(*names));
	const char *near;

	for (size_t i = 0; i < sessions->len; i++)
		names[i] = sessions->list[i].name;
	near = kb_closest(name, names, sessions->len);
	if (!strcmp(name, "last"))
		kb_err_set(err, KB_ERR_NOTFOUND, "no session is running");
	else
		kb_err_set(err, KB_ERR_NOTFOUND, "no session '%s' is running", name);
	if (near)
		kb_err_hint(err, "did you mean: %s", near);
	else if (sessions->len)
		kb_err_hint(err, "those that run: kbsup ps");
	else
		kb_err_hint(err, "none runs; those that ended: kbsup ps -a");
	free(names);
	return -KB_ERR_NOTFOUND;
}

int kb_session_resolve(struct kb_connection *connection, const char *name, char ret[KB_ULID_TEXT],
	struct kb_err *err)
{
	struct kb_sessions sessions KB_SESSIONS_CLEANUP = {0};
	const struct kb_session *found;
	int r = kb_sessions_read(&sessions, connection, err);

	if (r < 0)
		return r;
	found = kb_session_find(sessions.list, sessions.len, name);
	if (!found)
		return no_such_session(&sessions, name, err);
	memcpy(ret, found->id, KB_ULID_TEXT);
	return 0;
}

/* ---- Answers --------------------------------------------------------------------------------- */

static json_t *parse_lines(char *text)
{
	json_t *list = json_array();
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *one = json_loads(line, 0, NULL);

		if (one)
			json_array_append_new(list, one);
	}
	return list;
}

static int read_answer(int fd, json_t **ret, struct kb_err *err)
{
	struct kb_buf text KB_BUF_CLEANUP;
	char *string KB_FREE = NULL;
	uint8_t *room;
	ssize_t n = 1;
	int r;

	kb_buf_init(&text, ANSWER_MAX);
	if (lseek(fd, 0, SEEK_SET) < 0)
		return kb_err_sys(err, errno, "the answer cannot be read");
	while (n > 0) {
		r = kb_buf_reserve(&text, 65536, &room, err);
		if (r < 0)
			return r;
		n = read(fd, room, 65536);
		if (n > 0)
			kb_buf_commit(&text, (size_t)n);
	}
	string = kb_buf_steal_string(&text);
	if (!string)
		return kb_err_nomem(err);
	*ret = json_loads(string, 0, NULL);
	if (!*ret)
		*ret = parse_lines(string);
	return 0;
}

int kb_ask_json(struct kb_connection *connection, const struct kb_ask *ask, json_t **ret,
	struct kb_err *err)
{
	FILE *file = tmpfile();
	int r, status;

	if (!file)
		return kb_err_sys(err, errno, "a temporary file cannot be made");
	r = kb_client_ask(connection->client, ask, fileno(file), &status, err);
	if (r == 0)
		r = read_answer(fileno(file), ret, err);
	fclose(file);
	return r;
}

/* Whoever read the answer had enough (`| head`): end as any filter does, without a word. */
static void end_if_unread(int fd)
{
	struct pollfd p = {.fd = fd};

	if (poll(&p, 1, 0) > 0 && p.revents & POLLERR) {
		signal(SIGPIPE, SIG_DFL);
		raise(SIGPIPE);
	}
}

int kb_ask_show(const struct kb_cli *cli, struct kb_ask *question, int out_fd, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	bool shown = out_fd == STDOUT_FILENO;
	int status = KB_EXIT_OK, r = kb_connect(&connection, true, err);

	if (r < 0)
		return r;
	question->json = cli->json;
	question->tty = shown && cli->colour;
	question->columns = shown ? cli->columns : 0;
	question->home = cli->home;
	fflush(stdout);
	r = kb_client_ask(connection.client, question, out_fd, &status, err);
	if (r < 0)
		end_if_unread(out_fd);
	return r < 0 ? r : status;
}
