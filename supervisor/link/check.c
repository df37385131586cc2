/* What a guest may say. Pure: no state but what is passed in, so it is fuzzed as it is used. */
#include <string.h>

#include "audit/audit.h"
#include "link_private.h"
#include "supervisor/base/egress.h"
#include "supervisor/base/inbound.h"

int kb_check_hello(const Kb__Hello *msg, const char *build, struct kb_err *err)
{
	if (msg->protocol != KB_LINK_PROTOCOL)
		return kb_err_set(err, KB_ERR_INVALID,
			"the guest speaks protocol %u, this supervisor %d", msg->protocol,
			KB_LINK_PROTOCOL);
	if (strcmp(msg->build, build) != 0) {
		kb_err_set(err, KB_ERR_INVALID,
			"the guest is of another build: %s, the supervisor is %s", msg->build,
			build);
		return kb_err_hint(err, "install kbsup completely, then end the supervisor");
	}
	return kb_check_lines(msg->limits_missing, msg->n_limits_missing, err);
}

int kb_check_lines(char **lines, size_t n, struct kb_err *err)
{
	if (n > KB_LINK_LINES)
		return kb_err_set(err, KB_ERR_INVALID, "the guest sent %zu lines of text", n);
	for (size_t i = 0; i < n; i++)
		if (strlen(lines[i]) > KB_LINK_LINE)
			return kb_err_set(err, KB_ERR_INVALID, "the guest sent a line of %zu bytes",
				strlen(lines[i]));
	return 0;
}

int kb_check_exit(int32_t exit_code, uint32_t signal, struct kb_err *err)
{
	if (exit_code < 0 || exit_code > 255 || signal > 64)
		return kb_err_set(err, KB_ERR_INVALID,
			"the guest told of exit code %d and signal %u", exit_code, signal);
	return 0;
}

int kb_check_question(const Kb__Question *msg, uint64_t last, struct kb_err *err)
{
	char *lines[] = {msg->process, msg->call};

	if (msg->number <= last)
		return kb_err_set(err, KB_ERR_INVALID, "the guest asked question %llu after %llu",
			(unsigned long long)msg->number, (unsigned long long)last);
	return kb_check_lines(lines, KB_ARRAY_LEN(lines), err);
}

int kb_check_records(const Kb__Records *msg, uint64_t received, struct kb_err *err)
{
	uint32_t count;
	int r;

	if (msg->first_seq != received + 1)
		return kb_err_set(err, KB_ERR_INVALID,
			"the guest sent records from %llu on, %llu were due",
			(unsigned long long)msg->first_seq, (unsigned long long)received + 1);
	if (msg->block.len > KB_BLOCK_MAX)
		return kb_err_set(
			err, KB_ERR_INVALID, "the guest sent a block of %zu bytes", msg->block.len);
	r = kb_block_check(msg->block.data, msg->block.len, &count, err);
	if (r < 0)
		return kb_err_prefix(err, "the guest sent a bad block");
	if (count != msg->count || count == 0 || msg->denials > count)
		return kb_err_set(err, KB_ERR_INVALID,
			"the guest miscounted a block: %u records (%u denials), it has %u",
			msg->count, msg->denials, count);
	return 0;
}

int kb_check_egress(const Kb__Egress *msg, struct kb_err *err)
{
	bool peer = msg->kind == KB_EGRESS_TCP || msg->kind == KB_EGRESS_DROPPED;
	bool numbered = kb_egress_opens(msg->kind) || msg->kind == KB_EGRESS_CANCEL;

	if (!numbered && msg->kind != KB_EGRESS_DROPPED && msg->kind != KB_EGRESS_FULL &&
		msg->kind != KB_EGRESS_FINISH)
		return kb_err_set(err, KB_ERR_INVALID, "the guest spoke of a connection's kind %u",
			msg->kind);
	if (numbered != (msg->has_stream && msg->stream != 0) ||
		peer != (msg->has_address && msg->has_port) ||
		(peer && msg->address.len != 4 && msg->address.len != 16) ||
		msg->port > UINT16_MAX || msg->protocol > UINT8_MAX)
		return kb_err_set(err, KB_ERR_INVALID, "the guest misdescribed a connection");
	return 0;
}

int kb_check_inbound(const Kb__Inbound *msg, struct kb_err *err)
{
	bool known = msg->kind == KB_INBOUND_CONNECTED || msg->kind == KB_INBOUND_REFUSED ||
		     msg->kind == KB_INBOUND_CANCEL;

	if (!known || !msg->has_stream || msg->stream == 0)
		return kb_err_set(err, KB_ERR_INVALID, "the guest misdescribed a connection");
	return 0;
}
