#include "supervisor/guest/trust.h"

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define BUNDLE_MAX (2u << 20)

static const char *const places[] = {
	"/etc/ssl/certs/ca-certificates.crt",		     /* Debian, Arch, Alpine */
	"/etc/pki/tls/certs/ca-bundle.crt",		     /* Fedora */
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora */
	"/etc/ssl/ca-bundle.pem",			     /* openSUSE */
	"/etc/ssl/cert.pem",				     /* Alpine */
};

const char *kb_trust_place(size_t i)
{
	return i < KB_ARRAY_LEN(places) ? places[i] : NULL;
}

char *kb_trust_bundle(const char *source, const char *own)
{
	struct kb_buf text;
	int r;

	kb_buf_init(&text, BUNDLE_MAX);
	for (size_t i = 0; i < KB_ARRAY_LEN(places) && kb_buf_len(&text) == 0; i++) {
		char *path KB_FREE = kb_asprintf("%s%s", source ? source : "", places[i]);

		if (path)
			(void)kb_file_read(path, &text, NULL);
	}
	/* A machine without any has this one. */
	r = kb_buf_printf(&text, NULL, "%s%s", kb_buf_len(&text) ? "\n" : "", own);
	if (r == 0)
		return kb_buf_steal_string(&text);
	kb_buf_finish(&text);
	return NULL;
}
