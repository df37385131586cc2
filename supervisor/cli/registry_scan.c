/* Hosts in the configuration files of package managers. All of them are lines of KEY and value, so
 * one reader serves: which keys count is a table, and a value's URLs are what begins with http. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "cli.h"
#include "registry.h"
#include "supervisor/base/util.h"

#define HOST_MAX 253

static const struct {
	const char *kind, *key;
	bool main;   /* what is used when nothing else is said */
	bool suffix; /* the key may have something in front, like npm's @scope: */
	bool bare;   /* a host without a scheme counts too */
} keys[] = {
	{"@npm-registry", "registry", true, false, false},
	{"@npm-registry", ":registry", false, true, false},
	{"@pip-index", "index-url", true, false, false},
	{"@pip-index", "extra-index-url", false, false, false},
	{"@cargo-registry", "registry", true, false, false},
	{"@cargo-registry", "index", true, false, false},
	{"@apt-mirror", "deb", true, false, false},
	{"@apt-mirror", "deb-src", true, false, false},
	{"@apt-mirror", "uris", true, false, false},
	{"@go-proxy", "goproxy", true, false, false},
	{"@go-proxy", "gosumdb", false, false, true},
};

static void add_host(struct kb_registry_hosts *hosts, const char *host, size_t len,
	const char *port, size_t port_len)
{
	char text[HOST_MAX + 16];

	if (!len || len > HOST_MAX || !port_len || port_len > 5 ||
		hosts->n == KB_REGISTRY_HOSTS_MAX)
		return;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)host[i]) && !strchr("-._:[]", host[i]))
			return;
	for (size_t i = 0; i < port_len; i++)
		if (!isdigit((unsigned char)port[i]))
			return;
	snprintf(text, sizeof(text), "%.*s:%.*s", (int)len, host, (int)port_len, port);
	for (char *p = text; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	for (size_t i = 0; i < hosts->n; i++)
		if (!strcmp(hosts->hosts[i], text))
			return;
	hosts->hosts[hosts->n++] = kb_xstrdup(text);
	hosts->hosts[hosts->n] = NULL;
}

/* http[s]://[user[:password]@]host[:port][/…], cargo's "sparse+" in front; false: no such URL. */
static bool add_url(struct kb_registry_hosts *hosts, const char *url, size_t len)
{
	const char *end = url + len, *scheme = NULL, *at, *host, *port;
	bool tls;

	for (const char *p = url; p + 3 <= end && !scheme; p++)
		if (!strncmp(p, "://", 3))
			scheme = p;
	if (!scheme)
		return false;
	tls = scheme - url >= 5 && !strncasecmp(scheme - 5, "https", 5);
	if (!tls && (scheme - url < 4 || strncasecmp(scheme - 4, "http", 4) != 0))
		return false;
	host = scheme + 3;
	for (at = host; at < end && !strchr("/?#", *at); at++)
		;
	end = at;
	for (at = host; at < end; at++)
		if (*at == '@')
			host = at + 1;
	port = end;
	while (port > host && isdigit((unsigned char)port[-1]))
		port--;
	if (port > host && port < end && port[-1] == ':')
		add_host(hosts, host, (size_t)(port - 1 - host), port, (size_t)(end - port));
	else
		add_host(hosts, host, (size_t)(end - host), tls ? "443" : "80", tls ? 3 : 2);
	return true;
}

static void scan_value(const char *value, size_t len, bool bare, struct kb_registry_hosts *ret)
{
	const char *end = value + len;

	while (value < end) {
		size_t n = 0;

		while (value + n < end && !strchr(" \t,|\"'", value[n]))
			n++;
		/* go's checksum database may have its key behind the name: name+hash+key */
		if (n && !add_url(ret, value, n) && bare && memchr(value, '.', n)) {
			const char *plus = memchr(value, '+', n);

			add_host(ret, value, plus ? (size_t)(plus - value) : n, "443", 3);
		}
		value += n + (value + n < end);
	}
}

static void scan_line(const char *kind, const char *line, size_t len, struct kb_registry_hosts *ret)
{
	size_t key, at;

	while (len && isspace((unsigned char)*line))
		line++, len--;
	while (len && isspace((unsigned char)line[len - 1]))
		len--;
	for (key = 0;
		key < len && !strchr("= \t", line[key]) &&
		!(line[key] == ':' && (key + 1 == len || isspace((unsigned char)line[key + 1])));
		key++)
		;
	for (at = key; at < len && strchr("=: \t", line[at]); at++)
		;
	for (size_t i = 0; i < KB_ARRAY_LEN(keys); i++) {
		size_t want = strlen(keys[i].key);
		size_t before = ret->n;

		if (strcmp(keys[i].kind, kind) != 0 || key < want ||
			(key != want && !keys[i].suffix) ||
			strncasecmp(line + key - want, keys[i].key, want) != 0)
			continue;
		scan_value(line + at, len - at, keys[i].bare, ret);
		ret->complete |= keys[i].main && ret->n > before;
		return;
	}
}

void kb_registry_scan(const char *kind, const char *text, struct kb_registry_hosts *ret)
{
	while (*text) {
		size_t len = strcspn(text, "\n");

		scan_line(kind, text, len, ret);
		text += len + (text[len] == '\n');
	}
}

void kb_registry_hosts_finish(struct kb_registry_hosts *hosts)
{
	for (size_t i = 0; i < hosts->n; i++)
		free(hosts->hosts[i]);
	*hosts = (struct kb_registry_hosts){0};
}
