#include "keys.h"

#include <ctype.h>
#include <string.h>

static bool parse_key(const char *text, size_t len, uint8_t *ret)
{
	if (len == 1 && isgraph((unsigned char)*text)) {
		*ret = (uint8_t)*text;
		return true;
	}
	if (len != 6 || strncmp(text, "ctrl-", 5))
		return false;
	if (!isalpha((unsigned char)text[5]) && !strchr("@[\\]^_", text[5]))
		return false;
	*ret = (uint8_t)(toupper((unsigned char)text[5]) & 0x1f);
	return true;
}

int kb_keys_parse(struct kb_keys *keys, const char *text, struct kb_err *err)
{
	struct kb_keys parsed = {0};
	const char *at = text;

	if (!strcmp(text, "none")) {
		*keys = parsed;
		return 0;
	}
	for (;;) {
		size_t len = strcspn(at + (*at == ','), ",") + (*at == ',');

		if (parsed.len == KB_KEYS_MAX || !parse_key(at, len, &parsed.sequence[parsed.len]))
			break;
		parsed.len++;
		at += len;
		if (!*at) {
			*keys = parsed;
			return 0;
		}
		at++;
	}
	kb_err_set(err, KB_ERR_USAGE, "'%s' is not a sequence of keys", text);
	return kb_err_hint(err, "write up to %d keys like '%s' or 'ctrl-],d', or 'none'",
		KB_KEYS_MAX, KB_KEYS_DEFAULT);
}

size_t kb_keys_flush(struct kb_keys *keys, uint8_t *out)
{
	size_t n = keys->matched;

	memcpy(out, keys->sequence, n);
	keys->matched = 0;
	return n;
}

/* After a wrong byte the held bytes may still end with a shorter start of the sequence: pass on
 * only what cannot belong to it any more. */
static size_t fall_back(struct kb_keys *keys, uint8_t next, uint8_t *out)
{
	size_t n = 0;

	while (keys->matched) {
		size_t shift = 1;

		while (shift < keys->matched &&
			memcmp(keys->sequence, keys->sequence + shift, keys->matched - shift))
			shift++;
		memcpy(out + n, keys->sequence, shift);
		n += shift;
		keys->matched -= shift;
		if (keys->sequence[keys->matched] == next)
			break;
	}
	return n;
}

size_t kb_keys_feed(
	struct kb_keys *keys, const uint8_t *in, size_t len, uint8_t *out, bool *ret_detach)
{
	size_t n = 0;

	*ret_detach = false;
	if (!keys->len) {
		memcpy(out, in, len);
		return len;
	}
	for (size_t i = 0; i < len; i++) {
		if (in[i] != keys->sequence[keys->matched])
			n += fall_back(keys, in[i], out + n);
		if (in[i] != keys->sequence[keys->matched]) {
			out[n++] = in[i];
			continue;
		}
		if (++keys->matched == keys->len) {
			keys->matched = 0;
			*ret_detach = true;
			break;
		}
	}
	return n;
}
