/* The hosts that package managers' configuration files name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "supervisor/base/util.h"
#include "supervisor/cli/registry.h"

static const struct {
	const char *kind, *text, *hosts; /* joined with blanks */
	bool complete;
} rows[] = {
	{"@npm-registry", "registry=https://npm.example/\n", "npm.example:443", true},
	{"@npm-registry", "registry = \"http://NPM.example:4873/path\"\n", "npm.example:4873",
		true},
	{"@npm-registry", "@corp:registry=https://user:pw@corp.example/x\n", "corp.example:443",
		false},
	{"@npm-registry",
		"//npm.example/:_authToken=https://x.example\n# registry=https://a.example", "",
		false},
	{"@npm-registry", "myregistry=https://x.example\nregistry=ftp://x.example\nregistry=x", "",
		false},
	{"@npm-registry", "registry=https://\nregistry=https://a b\nregistry=https://a$/\n",
		"a:443", true},
	{"@npm-registry", "registry=https://[::1]:8080/", "[::1]:8080", true},
	{"@pip-index",
		"[global]\nindex-url = https://pip.example/simple\nextra-index-url = "
		"https://b.example "
		"https://c.example:8443\n",
		"pip.example:443 b.example:443 c.example:8443", true},
	{"@cargo-registry", "[source.x]\nregistry = \"sparse+https://cargo.example/index/\"\n",
		"cargo.example:443", true},
	{"@apt-mirror",
		"deb [signed-by=/x.gpg] http://apt.example/debian bookworm main\n#deb "
		"http://no.example\n",
		"apt.example:80", true},
	{"@apt-mirror",
		"Types: deb\nURIs: https://a.example/d http://b.example:3142/d\nSuites: x\n",
		"a.example:443 b.example:3142", true},
	{"@go-proxy", "GOPROXY=https://go.example,direct\nGOSUMDB=sum.example+0a1b+key\n",
		"go.example:443 sum.example:443", true},
	{"@go-proxy", "GOPROXY='off'\nGOSUMDB=off\n", "", false},
	{"@other", "registry=https://npm.example/\n", "", false},
};

static void files_are_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
		struct kb_registry_hosts hosts = {0};
		char joined[1024] = "";

		kb_registry_scan(rows[i].kind, rows[i].text, &hosts);
		for (size_t h = 0; h < hosts.n; h++)
			snprintf(joined + strlen(joined), sizeof(joined) - strlen(joined), "%s%s",
				h ? " " : "", hosts.hosts[h]);
		if (strcmp(joined, rows[i].hosts) != 0 || hosts.complete != rows[i].complete)
			fail_msg("row %zu: '%s' %d, expected '%s' %d", i, joined, hosts.complete,
				rows[i].hosts, rows[i].complete);
		kb_registry_hosts_finish(&hosts);
	}
}

/* However many a file names: no more than there is room for, none twice. */
static void hosts_are_bounded(void **state)
{
	struct kb_registry_hosts hosts = {0};

	(void)state;
	for (int i = 0; i < 200; i++) {
		char line[64];

		snprintf(line, sizeof(line), "registry=https://h%d.example", i / 2);
		kb_registry_scan("@npm-registry", line, &hosts);
	}
	assert_int_equal(hosts.n, KB_REGISTRY_HOSTS_MAX);
	assert_string_equal(hosts.hosts[1], "h1.example:443");
	kb_registry_hosts_finish(&hosts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_are_read),
		cmocka_unit_test(hosts_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
