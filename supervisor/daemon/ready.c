#include "ready.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

void kb_ready_tell(int fd, const struct kb_err *why)
{
	char text[KB_READY_MAX];
	int len;

	if (fd < 0)
		return;
	len = why ? snprintf(text, sizeof(text), "error\n%d\n%s\n%s", (int)why->code, why->msg,
			    why->hint)
		  : snprintf(text, sizeof(text), "ready");
	(void)kb_fd_write_all(fd, text, (size_t)KB_MIN(len, (int)sizeof(text) - 1), NULL);
}

static int parse(char *text, struct kb_err *err)
{
	char *save = NULL, *word = strtok_r(text, "\n", &save);
	const char *code, *msg, *hint;
	uint64_t number;

	if (word && strcmp(word, "ready") == 0)
		return 0;
	code = strtok_r(NULL, "\n", &save);
	msg = strtok_r(NULL, "\n", &save);
	hint = strtok_r(NULL, "\n", &save);
	if (!word || strcmp(word, "error") != 0 || !code || !msg || !kb_parse_u64(code, &number) ||
		number == 0 || number >= KB_ERR_MAX_)
		return kb_err_set(
			err, KB_ERR_UNREACHABLE, "the supervisor died while it was starting");
	kb_err_set(err, (enum kb_errcode)number, "%s", msg);
	if (hint)
		kb_err_hint(err, "%s", hint);
	return -(int)number;
}

int kb_ready_wait(int fd, int timeout_ms, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + (int64_t)timeout_ms * 1000000;
	char text[KB_READY_MAX];
	size_t len = 0;

	while (len < sizeof(text) - 1) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = (deadline - kb_now_mono()) / 1000000;
		int r = left <= 0 ? 0 : poll(&p, 1, (int)left);
		ssize_t n;

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return kb_err_set(err, KB_ERR_UNREACHABLE,
				"the supervisor did not start within %d s", timeout_ms / 1000);
		n = read(fd, text + len, sizeof(text) - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	text[len] = '\0';
	return parse(text, err);
}
