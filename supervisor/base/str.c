#include "str.h"
#include "os.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "util.h"

/* Length of the valid UTF-8 sequence at s (n bytes left), or 0. Unicode 15, table 3-7. */
static size_t utf8_sequence(const uint8_t *s, size_t n, uint32_t *ret_cp)
{
	static const uint32_t min_cp[5] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len, i;
	uint32_t cp;

	if (s[0] < 0x80) {
		*ret_cp = s[0];
		return 1;
	}
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		len = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		len = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (len > n)
		return 0;
	cp = s[0] & (0xff >> (len + 1));
	for (i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		cp = cp << 6 | (s[i] & 0x3f);
	}
	if (cp < min_cp[len] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
		return 0;
	*ret_cp = cp;
	return len;
}

/* Control characters, and the format characters that reorder or hide text on a screen. */
static bool is_unsafe(uint32_t cp)
{
	return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x061c ||
	       (cp >= 0x200b && cp <= 0x200f) || (cp >= 0x2028 && cp <= 0x202e) ||
	       (cp >= 0x2060 && cp <= 0x206f) || cp == 0xfeff || (cp >= 0xfff9 && cp <= 0xfffb) ||
	       (cp >= 0xe0000 && cp <= 0xe007f);
}

static size_t escape_byte(char out[5], uint8_t c)
{
	static const char short_form[256] = {
		['\n'] = 'n', ['\t'] = 't', ['\r'] = 'r', ['\\'] = '\\'};

	if (short_form[c])
		return (size_t)snprintf(out, 5, "\\%c", short_form[c]);
	return (size_t)snprintf(out, 5, "\\x%02x", c);
}

size_t kb_escape(char *dst, size_t size, const void *src, size_t len)
{
	const uint8_t *s = src;
	size_t i = 0, out = 0, n, k, piece;
	bool full = size == 0;
	uint32_t cp = 0;
	char esc[20];
	const char *from;

	while (i < len) {
		n = utf8_sequence(s + i, len - i, &cp);
		if (n > 0 && cp != '\\' && !is_unsafe(cp)) {
			from = (const char *)s + i;
			piece = n;
		} else {
			n = n ? n : 1;
			for (k = 0, piece = 0; k < n; k++)
				piece += escape_byte(esc + piece, s[i + k]);
			from = esc;
		}
		if (!full && out + piece < size)
			memcpy(dst + out, from, piece);
		else if (!full) {
			full = true;
			dst[out] = '\0';
		}
		out += piece;
		i += n;
	}
	if (!full)
		dst[out] = '\0';
	return out;
}

char *kb_escape_dup(const void *src, size_t len)
{
	size_t need = kb_escape(NULL, 0, src, len);
	char *text = malloc(need + 1);

	if (text)
		kb_escape(text, need + 1, src, len);
	return text;
}

bool kb_utf8_valid(const void *src, size_t len)
{
	const uint8_t *s = src;
	uint32_t cp;
	size_t n;

	for (size_t i = 0; i < len; i += n) {
		n = utf8_sequence(s + i, len - i, &cp);
		if (n == 0)
			return false;
	}
	return true;
}

static const char crockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

int kb_ulid_new(uint8_t ret[KB_ULID_SIZE], struct kb_err *err)
{
	uint64_t ms = (uint64_t)kb_now_real() / 1000000;

	if (kb_os_random(ret + 6, 10) < 0)
		return kb_err_sys(err, errno, "random bytes could not be read");
	for (int i = 0; i < 6; i++)
		ret[i] = (uint8_t)(ms >> (8 * (5 - i)));
	return 0;
}

void kb_ulid_format(const uint8_t id[KB_ULID_SIZE], char ret[KB_ULID_TEXT])
{
	/* 128 bits in 26 digits of 5: the first digit holds the top 3 bits. */
	for (int digit = 0; digit < 26; digit++) {
		unsigned v = 0;

		for (int bit = 0; bit < 5; bit++) {
			int pos = digit * 5 + bit - 2;

			v <<= 1;
			if (pos >= 0)
				v |= id[pos / 8] >> (7 - pos % 8) & 1;
		}
		ret[digit] = crockford[v];
	}
	ret[26] = '\0';
}

bool kb_ulid_parse(const char *text, uint8_t ret[KB_ULID_SIZE])
{
	const char *p;

	if (strlen(text) != 26 || text[0] > '7')
		return false;
	memset(ret, 0, KB_ULID_SIZE);
	for (int digit = 0; digit < 26; digit++) {
		p = strchr(crockford, toupper((unsigned char)text[digit]));
		if (!p)
			return false;
		for (int bit = 0; bit < 5; bit++) {
			int pos = digit * 5 + bit - 2;

			if (pos >= 0 && ((p - crockford) >> (4 - bit) & 1))
				ret[pos / 8] |= (uint8_t)(1 << (7 - pos % 8));
		}
	}
	return true;
}

static const char *const name_first[] = {"amber", "bold", "brave", "bright", "brisk", "calm",
	"clear", "clever", "cosy", "crisp", "deft", "eager", "early", "fair", "fleet", "fresh",
	"gentle", "glad", "grand", "hardy", "honest", "keen", "kind", "light", "lively", "lucid",
	"merry", "mild", "neat", "nimble", "noble", "patient", "plain", "proud", "quick", "quiet",
	"rapid", "ready", "sharp", "silent", "smart", "snug", "solid", "steady", "still", "sunny",
	"swift", "tidy", "vivid", "warm", "wise", "witty"};
static const char *const name_second[] = {"badger", "bear", "beaver", "bison", "crane", "crow",
	"curlew", "deer", "dove", "eagle", "egret", "elk", "falcon", "ferret", "finch", "fox",
	"gecko", "hare", "hawk", "heron", "ibex", "jay", "kestrel", "kite", "lark", "linnet",
	"lynx", "marten", "mole", "moose", "newt", "osprey", "otter", "owl", "panda", "pika",
	"plover", "puffin", "raven", "robin", "seal", "shrew", "sparrow", "stoat", "stork", "swan",
	"tern", "toad", "viper", "vole", "wolf", "wren"};

int kb_name_new(char ret[KB_NAME_MAX], struct kb_err *err)
{
	uint16_t r[2];

	if (kb_os_random(r, sizeof(r)) < 0)
		return kb_err_sys(err, errno, "random bytes could not be read");
	snprintf(ret, KB_NAME_MAX, "%s-%s", name_first[r[0] % KB_ARRAY_LEN(name_first)],
		name_second[r[1] % KB_ARRAY_LEN(name_second)]);
	return 0;
}

bool kb_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len >= KB_NAME_MAX || name[0] == '-' || name[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	return true;
}

struct unit {
	const char *suffix;
	uint64_t factor;
};

/* A decimal number with an optional fraction, times the factor of its suffix. */
static bool parse_scaled(const char *text, const struct unit *units, size_t n, uint64_t *ret)
{
	size_t digits = strspn(text, "0123456789.");
	char *end;
	double v;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	v = strtod(text, &end);
	/* strtod would also take exponents and hexadecimal. */
	if (errno || end != text + digits)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (strcasecmp(end, units[i].suffix) != 0)
			continue;
		v *= (double)units[i].factor;
		if (v >= 9.2e18)
			return false;
		*ret = (uint64_t)v;
		return true;
	}
	return false;
}

bool kb_parse_size(const char *text, uint64_t *ret_bytes)
{
	static const struct unit units[] = {{"", 1}, {"b", 1}, {"k", 1 << 10}, {"kib", 1 << 10},
		{"m", 1 << 20}, {"mib", 1 << 20}, {"g", 1 << 30}, {"gib", 1 << 30},
		{"t", 1ull << 40}, {"tib", 1ull << 40}};

	return parse_scaled(text, units, KB_ARRAY_LEN(units), ret_bytes);
}

bool kb_parse_duration(const char *text, int64_t *ret_ns)
{
	static const struct unit units[] = {{"ms", 1000000}, {"", 1000000000}, {"s", 1000000000},
		{"m", 60000000000}, {"min", 60000000000}, {"h", 3600000000000},
		{"d", 86400000000000}, {"w", 604800000000000}};
	uint64_t v;

	if (!parse_scaled(text, units, KB_ARRAY_LEN(units), &v))
		return false;
	*ret_ns = (int64_t)v;
	return true;
}

bool kb_parse_u64(const char *text, uint64_t *ret)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	*ret = strtoull(
		text, &end, text[0] == '0' && tolower((unsigned char)text[1]) == 'x' ? 16 : 10);
	return errno == 0 && *end == '\0';
}

#define KB_CLOSEST_MAX 64

static bool same_letter(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Letters missing, too many, wrong, or two of them swapped (optimal string alignment): three rows.
 */
static size_t distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), rows[3][KB_CLOSEST_MAX + 1];

	if (la > KB_CLOSEST_MAX || lb > KB_CLOSEST_MAX)
		return KB_CLOSEST_MAX;
	for (size_t j = 0; j <= lb; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= la; i++) {
		const size_t *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
		size_t *row = rows[i % 3];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t wrong = last[j - 1] + !same_letter(a[i - 1], b[j - 1]);

			row[j] = KB_MIN(KB_MIN(last[j] + 1, row[j - 1] + 1), wrong);
			if (i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) &&
				same_letter(a[i - 2], b[j - 1]))
				row[j] = KB_MIN(row[j], before[j - 2] + 1);
		}
	}
	return rows[la % 3][lb];
}

const char *kb_closest(const char *word, const char *const *candidates, size_t n)
{
	size_t best = strlen(word) / 3 + 2, d;
	const char *found = NULL;

	for (size_t i = 0; i < n; i++) {
		d = distance(word, candidates[i]);
		if (d < best) {
			best = d;
			found = candidates[i];
		}
	}
	return found;
}

char *kb_base64(const void *src, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *s = src;
	char *out = malloc((len + 2) / 3 * 4 + 1), *p = out;

	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)s[i] << 16 | (i + 1 < len ? (uint32_t)s[i + 1] << 8 : 0) |
			     (i + 2 < len ? s[i + 2] : 0);

		*p++ = digits[v >> 18];
		*p++ = digits[v >> 12 & 63];
		*p++ = i + 1 < len ? digits[v >> 6 & 63] : '=';
		*p++ = i + 2 < len ? digits[v & 63] : '=';
	}
	*p = '\0';
	return out;
}

const char *kb_text_count(uint64_t n, char ret[KB_COUNT_MAX])
{
	char digits[24];
	size_t len = (size_t)snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n),
	       at = 0;

	for (size_t i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			ret[at++] = ',';
		ret[at++] = digits[i];
	}
	ret[at] = '\0';
	return ret;
}

char *kb_asprintf(const char *fmt, ...)
{
	va_list ap;
	char *text;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	text = len < 0 ? NULL : malloc((size_t)len + 1);
	if (!text)
		return NULL;
	va_start(ap, fmt);
	vsnprintf(text, (size_t)len + 1, fmt, ap);
	va_end(ap);
	return text;
}
