#include "when.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define SECOND INT64_C(1000000000)

static bool to_ns(struct tm *tm, int64_t frac, bool utc, int64_t *ret)
{
	struct tm before = *tm;
	time_t t = utc ? timegm(tm) : mktime(tm);

	/* mktime() moves days that do not exist; the 31st of February is a mistake here. */
	if (before.tm_mday != tm->tm_mday && before.tm_hour == tm->tm_hour)
		return false;
	if (t > INT64_MAX / SECOND || t < 0)
		return false;
	*ret = (int64_t)t * SECOND + frac;
	return true;
}

static bool digits(const char **p, int n, int min, int max, int *ret)
{
	int v = 0;

	for (int i = 0; i < n; i++, (*p)++) {
		if (!isdigit((unsigned char)**p))
			return false;
		v = v * 10 + (**p - '0');
	}
	*ret = v;
	return v >= min && v <= max;
}

static bool parse_fraction(const char **p, int64_t *ret)
{
	int64_t unit = SECOND / 10;

	*ret = 0;
	if (**p != '.')
		return true;
	(*p)++;
	if (!isdigit((unsigned char)**p))
		return false;
	for (; isdigit((unsigned char)**p); (*p)++, unit /= 10)
		*ret += (**p - '0') * unit;
	return true;
}

/* "16:20", "16:20:11", "16:20:11.5" */
static bool parse_clock(const char **p, struct tm *tm, int64_t *frac)
{
	*frac = 0;
	if (!digits(p, 2, 0, 23, &tm->tm_hour) || *(*p)++ != ':' ||
		!digits(p, 2, 0, 59, &tm->tm_min))
		return false;
	if (**p != ':')
		return true;
	(*p)++;
	return digits(p, 2, 0, 60, &tm->tm_sec) && parse_fraction(p, frac);
}

static bool parse_zone(const char *p, bool *utc, int64_t *offset)
{
	int sign, hour, minute;

	*offset = 0;
	if (*p == '\0')
		return true;
	*utc = true;
	if ((*p == 'Z' || *p == 'z') && p[1] == '\0')
		return true;
	if (*p != '+' && *p != '-')
		return false;
	sign = *p++ == '-' ? -1 : 1;
	if (!digits(&p, 2, 0, 23, &hour))
		return false;
	if (*p == ':')
		p++;
	if (!digits(&p, 2, 0, 59, &minute) || *p)
		return false;
	*offset = sign * (hour * 60 + minute) * 60 * SECOND;
	return true;
}

static bool parse_date(const char *p, bool utc, int64_t *ret)
{
	struct tm tm = {.tm_isdst = -1};
	int64_t frac = 0, offset;
	int year;

	if (!digits(&p, 4, 1970, 9999, &year) || *p++ != '-' || !digits(&p, 2, 1, 12, &tm.tm_mon) ||
		*p++ != '-' || !digits(&p, 2, 1, 31, &tm.tm_mday))
		return false;
	tm.tm_year = year - 1900;
	tm.tm_mon--;
	if (*p == '\0')
		return to_ns(&tm, 0, utc, ret);
	if (*p != 'T' && *p != 't' && *p != ' ')
		return false;
	p++;
	if (!parse_clock(&p, &tm, &frac) || !parse_zone(p, &utc, &offset))
		return false;
	if (!to_ns(&tm, frac, utc, ret))
		return false;
	*ret -= offset;
	return true;
}

static void today(int64_t now, bool utc, struct tm *tm)
{
	time_t t = (time_t)(now / SECOND);

	if (utc)
		gmtime_r(&t, tm);
	else
		localtime_r(&t, tm);
	tm->tm_hour = tm->tm_min = tm->tm_sec = 0;
	tm->tm_isdst = -1;
}

static bool parse_age(const char *text, int64_t now, int64_t *ret)
{
	char age[32];
	int64_t ns;
	size_t len = strlen(text);

	if (len > 4 && strcmp(text + len - 4, " ago") == 0)
		len -= 4;
	/* A bare number would be seconds: too easily a mistake here. */
	if (len == 0 || len >= sizeof(age) || isdigit((unsigned char)text[len - 1]))
		return false;
	memcpy(age, text, len);
	age[len] = '\0';
	if (!kb_parse_duration(age, &ns) || ns > now)
		return false;
	*ret = now - ns;
	return true;
}

bool kb_when_parse(const char *text, int64_t now, bool utc, int64_t *ret)
{
	struct tm tm;
	int64_t frac;
	const char *p = text;

	today(now, utc, &tm);
	if (strcmp(text, "now") == 0) {
		*ret = now;
		return true;
	}
	if (strcmp(text, "today") == 0)
		return to_ns(&tm, 0, utc, ret);
	if (strcmp(text, "yesterday") == 0) {
		tm.tm_mday--;
		*ret = (utc ? timegm(&tm) : mktime(&tm)) * SECOND;
		return true;
	}
	if (parse_date(text, utc, ret) || parse_age(text, now, ret))
		return true;
	return parse_clock(&p, &tm, &frac) && *p == '\0' && to_ns(&tm, frac, utc, ret);
}

int kb_when_bound(const char *text, const char *option, bool utc, int64_t *ret, struct kb_err *err)
{
	if (!text || kb_when_parse(text, kb_now_real(), utc, ret))
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "%s '%s' is not a time", option, text);
	return kb_err_hint(
		err, "write 2026-11-23, \"2026-11-23 16:20\", 16:20, yesterday, or 2h (ago)");
}

void kb_when_format(uint64_t time, bool utc, bool ms, char ret[KB_WHEN_MAX])
{
	time_t t = (time_t)(time / SECOND);
	struct tm tm;
	size_t len;

	if (utc)
		gmtime_r(&t, &tm);
	else
		localtime_r(&t, &tm);
	len = strftime(ret, KB_WHEN_MAX, "%Y-%m-%d %H:%M:%S", &tm);
	if (ms)
		snprintf(
			ret + len, KB_WHEN_MAX - len, ".%03u", (unsigned)(time % SECOND / 1000000));
}

void kb_when_rfc3339(uint64_t time, char ret[KB_WHEN_MAX])
{
	time_t t = (time_t)(time / SECOND);
	struct tm tm;
	size_t len;

	gmtime_r(&t, &tm);
	len = strftime(ret, KB_WHEN_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret + len, KB_WHEN_MAX - len, ".%09uZ", (unsigned)(time % SECOND));
}

void kb_duration_format(uint64_t ns, char ret[KB_WHEN_MAX])
{
	uint64_t s = ns / (uint64_t)SECOND;

	if (s < 1)
		snprintf(ret, KB_WHEN_MAX, "%" PRIu64 "ms", ns / 1000000);
	else if (s < 60)
		snprintf(ret, KB_WHEN_MAX, "%" PRIu64 ".%us", s,
			(unsigned)(ns % SECOND / (SECOND / 10)));
	else if (s < 3600)
		snprintf(ret, KB_WHEN_MAX, "%" PRIu64 "m%02us", s / 60, (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(ret, KB_WHEN_MAX, "%" PRIu64 "h%02um", s / 3600, (unsigned)(s / 60 % 60));
	else
		snprintf(ret, KB_WHEN_MAX, "%" PRIu64 "d%02uh", s / 86400,
			(unsigned)(s / 3600 % 24));
}
