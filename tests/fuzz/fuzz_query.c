/* Expressions and times of the query language: an error with its place inside the text, or
 * something that can be evaluated. */
#include <stdlib.h>
#include <string.h>

#include "audit/query/expr.h"
#include "audit/query/when.h"
#include "supervisor/base/util.h"

static void check(bool promise)
{
	if (!promise)
		abort();
}

static void evaluate(const struct kb_expr *expr)
{
	static const uint8_t address[4] = {10, 0, 0, 1};
	static const struct kb_bytes argv[2] = {
		{(const uint8_t *)"rm", 2}, {(const uint8_t *)"-rf /", 5}};
	const struct kb_record record = {.event = KB_EVENT_OPEN,
		.pid = 7,
		.syscall = 257,
		.rule = KB_RULE_NONE,
		.path = {(const uint8_t *)"/home/dev/.ssh/id", 17},
		.address = {address, 4},
		.family = 2,
		.argv = argv,
		.argc = 2,
		.has_flags = true,
		.flags = 0x241,
		.errnum = 13};
	const struct kb_session session = {.name = "brave-otter", .agent = "", .machine = "local"};
	const struct kb_row row = {.session = &session, .seq = 1, .record = &record};

	(void)kb_expr_match(expr, &row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct kb_expr_options options = {.home = "/home/dev", .now = 1, .utc = true};
	KB_FREE char *text = malloc(size + 1);
	struct kb_expr_error error;
	struct kb_expr *expr = NULL;
	struct kb_buf screen;
	int64_t time;

	check(text != NULL);
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	(void)kb_when_parse(text, INT64_C(1764000000000000000), true, &time);
	if (kb_expr_parse(text, &options, &expr, &error) == 0) {
		evaluate(expr);
		kb_expr_destroy(expr);
		return 0;
	}
	check(error.at <= strlen(text) && error.what[0]);
	kb_buf_init(&screen, 1u << 20);
	check(kb_expr_error_render(text, &error, &screen, NULL) == 0);
	check(memchr(kb_buf_data(&screen), '\033', kb_buf_len(&screen)) == NULL);
	kb_buf_finish(&screen);
	return 0;
}
