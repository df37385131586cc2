/* The text helpers that meet foreign bytes: escaping, UTF-8, ids, names, sizes, durations. Besides
 * not crashing, their promises are checked. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

static void check(bool promise)
{
	if (!promise)
		abort();
}

static void check_escape(const uint8_t *data, size_t len)
{
	KB_FREE char *whole = kb_escape_dup(data, len);
	char small[7];
	size_t need;

	check(whole != NULL);
	need = strlen(whole);
	check(kb_utf8_valid(whole, need));
	for (size_t i = 0; i < need; i++)
		check((unsigned char)whole[i] >= 0x20 && whole[i] != 0x7f);
	/* A short buffer is cut, never overrun, and tells the full length. */
	check(kb_escape(small, sizeof(small), data, len) == need);
	check(strlen(small) < sizeof(small));
	check(strncmp(small, whole, strlen(small)) == 0);
}

static void check_numbers(const char *text)
{
	static const char *const words[] = {"run", "stop", "status"};
	uint8_t id[KB_ULID_SIZE], again[KB_ULID_SIZE];
	char ulid[KB_ULID_TEXT];
	uint64_t size, number;
	int64_t ns;

	if (kb_parse_duration(text, &ns))
		check(ns >= 0);
	(void)kb_parse_size(text, &size);
	(void)kb_parse_u64(text, &number);
	(void)kb_closest(text, words, KB_ARRAY_LEN(words));
	if (kb_name_valid(text))
		check(strlen(text) < KB_NAME_MAX && !strchr(text, '/') && text[0] != '.');
	if (kb_ulid_parse(text, id)) {
		kb_ulid_format(id, ulid);
		check(kb_ulid_parse(ulid, again) && memcmp(id, again, sizeof(id)) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	KB_FREE char *text = malloc(size + 1);
	KB_FREE char *b64 = kb_base64(data, size);

	check(text && b64);
	check(strlen(b64) == (size + 2) / 3 * 4);
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	check_escape(data, size);
	check_numbers(text);
	return 0;
}
