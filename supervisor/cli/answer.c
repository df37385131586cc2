/* kbsup answer */
#include <string.h>

#include "connect.h"
#include "question.h"
#include "supervisor/base/str.h"
#include "verbs.h"

struct questions {
	struct kb_question *list;
	size_t len;
};

static void questions_finish(struct questions *q)
{
	for (size_t i = 0; i < q->len; i++)
		kb_question_finish(&q->list[i]);
	free(q->list);
}

static json_t *question_json(const struct kb_question *q)
{
	return json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "session", q->session,
		"number", (json_int_t)q->number, "process", q->process, "call", q->call, "rule",
		q->rule, "rule_text", q->rule_text, "text", q->text, "asked_ns",
		(json_int_t)q->asked, "wait_ms", (json_int_t)q->wait_ms);
}

static int list(struct kb_cli *cli, const struct questions *questions, struct kb_err *err)
{
	json_t *array;

	if (cli->json) {
		array = json_array();
		for (size_t i = 0; i < questions->len; i++)
			json_array_append_new(array, question_json(&questions->list[i]));
		return kb_json_print(cli, array, err);
	}
	for (size_t i = 0; i < questions->len; i++) {
		const struct kb_question *q = &questions->list[i];
		struct kb_buf out KB_BUF_CLEANUP;
		char *text KB_FREE;

		kb_buf_init(&out, 64u << 10);
		kb_question_describe(q, "       ", "\n", &out);
		text = kb_buf_steal_string(&out);
		printf("%s %llu\n%s", q->session, (unsigned long long)q->number, text ? text : "");
	}
	if (!questions->len && cli->columns)
		puts("no questions are open");
	return KB_EXIT_OK;
}

static int parse_number(const char *text, uint64_t *ret, struct kb_err *err)
{
	if (kb_parse_u64(text, ret) && *ret > 0)
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "'%s' is not the number of a question", text);
	return kb_err_hint(err, "kbsup answer lists the questions that are open");
}

/* What `always` has to write down is only known while the question is open. */
static void keep(const struct questions *questions, uint64_t number)
{
	for (size_t i = 0; i < questions->len; i++) {
		char *said KB_FREE = NULL;

		if (questions->list[i].number != number)
			continue;
		kb_answer_keep(&questions->list[i], &said);
		printf("%s\n", said);
	}
}

static int answer(struct kb_connection *connection, const struct questions *questions,
	const char *session, const struct kb_args *args, struct kb_err *err)
{
	const struct kb_answer_word *word = kb_answer_find(args->operands[2]);
	uint64_t number;
	int r = parse_number(args->operands[1], &number, err);

	if (r == 0)
		r = kb_client_answer(connection->client, session, number, word->verdict, err);
	if (r == 0 && word->keep)
		keep(questions, number);
	return r;
}

static int run_answer(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct questions questions KB_CLEANUP(questions_finish) = {0};
	const char *session = NULL;
	char id[KB_ULID_TEXT];
	bool running = true;
	int r;

	if (args->n_operands == 2) {
		kb_err_set(
			err, KB_ERR_USAGE, "there is no answer to question %s", args->operands[1]);
		return kb_err_hint(err, "allow, session, always, deny or never");
	}
	r = kb_connect_running(&connection, &running, err);
	if (r == 0 && running && args->n_operands > 0) {
		r = kb_session_resolve(&connection, args->operands[0], id, err);
		session = id;
	}
	if (r == 0 && running)
		r = kb_client_questions(
			connection.client, session, &questions.list, &questions.len, err);
	if (r < 0)
		return r;
	if (args->n_operands < 3)
		return list(cli, &questions, err);
	if (!running)
		return kb_err_set(err, KB_ERR_UNREACHABLE, "no supervisor is running");
	return answer(&connection, &questions, session, args, err);
}

const struct kb_command kb_cmd_answer = {
	.name = "answer",
	.group = KB_GROUP_SESSIONS,
	.summary = "Answer what a policy's `ask` rules stopped",
	.about =
		"Lists the calls that wait for an answer, of one session or of all; with a number, "
		"answers: allow (this once), session (until the session ends), always (and write "
		"it into the policy), deny, never (until the session ends). Who is attached on a "
		"terminal is asked there.",
	.operands = {{.name = "S", .min = 0, .max = 1, .kind = KB_KIND_SESSION},
		{.name = "N", .min = 0, .max = 1, .kind = KB_KIND_COUNT},
		{.name = "ANSWER",
			.min = 0,
			.max = 1,
			.kind = KB_KIND_WORD,
			.words = "allow|session|always|deny|never"}},
	.json = true,
	.man = "kbsup-session",
	.run = run_answer,
};
