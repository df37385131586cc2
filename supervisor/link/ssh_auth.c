/* Who the server is, then who we are. Nothing about the user is said before the host key has proved
 * to be the pinned one. */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "ssh_private.h"

#define KEY_TYPES "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521"
#define HASH_SIZE 32

/* ---- The server ------------------------------------------------------------------------------ */

static bool known_type(const char *type, size_t len)
{
	for (const char *p = KEY_TYPES; *p; p += strcspn(p, ","), p += *p == ',')
		if (strcspn(p, ",") == len && strncmp(p, type, len) == 0)
			return true;
	return false;
}

int kb_ssh_want_host_key(struct kb_ssh *ssh, struct kb_err *err)
{
	size_t len = ssh->scan ? 0 : strcspn(ssh->host_key, " ");
	char type[32];

	if (!ssh->scan && (!known_type(ssh->host_key, len) || len >= sizeof(type)))
		return kb_err_set(err, KB_ERR_INVALID,
			"the host key pinned for %s is not Ed25519 or ECDSA", ssh->where);
	snprintf(type, sizeof(type), "%.*s", (int)len, ssh->scan ? "" : ssh->host_key);
	if (libssh2_session_method_pref(
		    ssh->session, LIBSSH2_METHOD_HOSTKEY, ssh->scan ? KEY_TYPES : type) < 0)
		return kb_ssh_error(ssh, err, "a kind of host key cannot be asked for");
	return 0;
}

static int print_blob(
	const uint8_t *blob, size_t len, char ret[KB_SSH_PRINT_TEXT], struct kb_err *err)
{
	uint8_t hash[HASH_SIZE];
	KB_FREE char *text = NULL;

	if (EVP_Digest(blob, len, hash, NULL, EVP_sha256(), NULL) != 1 ||
		!(text = kb_base64(hash, sizeof(hash))))
		return kb_err_nomem(err);
	snprintf(ret, KB_SSH_PRINT_TEXT, "SHA256:%.*s", (int)strcspn(text, "="), text);
	return 0;
}

/* A key begins with its type. */
static bool starts_with_type(const uint8_t *blob, size_t len, const char *type, size_t type_len)
{
	return len > 4 + type_len && !blob[0] && !blob[1] && !blob[2] && blob[3] == type_len &&
	       memcmp(blob + 4, type, type_len) == 0;
}

int kb_ssh_fingerprint(const char *line, char ret[KB_SSH_PRINT_TEXT], struct kb_err *err)
{
	size_t type = strcspn(line, " "), len;
	const char *text = line + type + (line[type] == ' ');
	uint8_t blob[KB_SSH_KEY_TEXT];
	int n;

	len = strcspn(text, " \r\n");
	if (!known_type(line, type) || len == 0 || len % 4 != 0 || len >= sizeof(blob) ||
		(n = EVP_DecodeBlock(blob, (const unsigned char *)text, (int)len)) < 0 ||
		!starts_with_type(blob, (size_t)n, line, type))
		return kb_err_set(err, KB_ERR_INVALID,
			"not an Ed25519 or ECDSA host key as in a known_hosts file");
	n -= text[len - 1] == '=';
	n -= text[len - 2] == '=';
	return print_blob(blob, (size_t)n, ret, err);
}

int kb_ssh_shown_key(struct kb_ssh *ssh, char line[KB_SSH_KEY_TEXT], char print[KB_SSH_PRINT_TEXT],
	struct kb_err *err)
{
	size_t len = 0;
	int type, n;
	const uint8_t *blob = (const uint8_t *)libssh2_session_hostkey(ssh->session, &len, &type);
	KB_FREE char *text = blob ? kb_base64(blob, len) : NULL;
	uint32_t name = 0;

	if (!text)
		return kb_ssh_error(ssh, err, "no host key was shown");
	if (len >= 4)
		name = (uint32_t)blob[0] << 24 | (uint32_t)blob[1] << 16 | (uint32_t)blob[2] << 8 |
		       blob[3];
	if (name > len - 4 || !known_type((const char *)blob + 4, name))
		return kb_err_set(err, KB_ERR_INVALID, "%s shows a malformed host key", ssh->where);
	n = snprintf(line, KB_SSH_KEY_TEXT, "%.*s %s", (int)name, (const char *)blob + 4, text);
	if (n >= KB_SSH_KEY_TEXT)
		return kb_err_set(
			err, KB_ERR_INVALID, "%s shows an oversized host key", ssh->where);
	return print_blob(blob, len, print, err);
}

/* Type and key; what follows is a comment. */
static bool same_key(const char *shown, const char *pinned)
{
	size_t len = strlen(shown);

	return strncmp(shown, pinned, len) == 0 && strchr(" \r\n", pinned[len]);
}

int kb_ssh_check_host_key(struct kb_ssh *ssh, struct kb_err *err)
{
	char line[KB_SSH_KEY_TEXT], print[KB_SSH_PRINT_TEXT], pinned[KB_SSH_PRINT_TEXT] = "?";
	int r = kb_ssh_shown_key(ssh, line, print, err);

	if (r < 0 || same_key(line, ssh->host_key))
		return r;
	(void)kb_ssh_fingerprint(ssh->host_key, pinned, NULL);
	kb_err_set(err, KB_ERR_REFUSED, "%s shows another host key than the pinned one: %s, not %s",
		ssh->where, print, pinned);
	return kb_err_hint(err,
		"something else may answer there; if the machine was made anew, delete it here and "
		"add it again");
}

/* ---- The user -------------------------------------------------------------------------------- */

static void note(struct kb_ssh *ssh, const char *what, const char *how)
{
	size_t len = strlen(ssh->auth.tried);
	char name[128];

	kb_escape(name, sizeof(name), what, strlen(what));
	snprintf(ssh->auth.tried + len, sizeof(ssh->auth.tried) - len, "%s%s%s", len ? ", " : "",
		name, how);
}

static void on_agent(void *arg)
{
	kb_ssh_kick(arg);
}

/* What the server says before anything was tried. */
static int list_methods(struct kb_ssh *ssh, struct kb_err *err)
{
	const char *list =
		libssh2_userauth_list(ssh->session, ssh->user, (unsigned)strlen(ssh->user));

	if (!list && libssh2_session_last_errno(ssh->session) == LIBSSH2_ERROR_EAGAIN)
		return 0;
	if (!list && libssh2_userauth_authenticated(ssh->session))
		return 1;
	if (!list)
		return kb_ssh_error(ssh, err, "it does not say how to log in");
	ssh->auth.listed = true;
	if (!strstr(list, "publickey")) {
		kb_err_set(err, KB_ERR_FAILED, "%s takes no keys for %s", ssh->where, ssh->user);
		return kb_err_hint(err, "allow PubkeyAuthentication in its sshd_config");
	}
	if (ssh->agent_path && kb_ssh_agent_open(ssh->loop, ssh->agent_path, on_agent, ssh,
				       &ssh->auth.agent, NULL) < 0)
		note(ssh, "the ssh agent", " (cannot be reached)");
	return 0;
}

struct signing {
	struct kb_ssh *ssh;
	const struct kb_ssh_identity *identity;
};

static LIBSSH2_USERAUTH_PUBLICKEY_SIGN_FUNC(sign)
{
	const struct signing *s = *abstract;
	const uint8_t *text;
	size_t len;
	struct kb_ssh *ssh = s->ssh;
	void *owner = ssh;
	int r = kb_ssh_agent_sign(ssh->auth.agent, s->identity, data, data_len, &text, &len, NULL);

	if (r == 0)
		return LIBSSH2_ERROR_EAGAIN;
	*sig = r > 0 ? kb_ssh_alloc(len, &owner) : NULL;
	if (!*sig)
		return LIBSSH2_ERROR_AUTHENTICATION_FAILED;
	memcpy(*sig, text, len);
	*sig_len = len;
	return 0;
}

static void end_agent(struct kb_ssh *ssh, const char *how)
{
	note(ssh, "the ssh agent", how);
	kb_ssh_agent_close(ssh->auth.agent);
	ssh->auth.agent = NULL;
}

/* 1: in; 0: wait, or go on (*ret_next). */
static int try_agent(struct kb_ssh *ssh, bool *ret_next)
{
	struct kb_ssh_auth *a = &ssh->auth;
	struct signing signing = {.ssh = ssh};
	void *abstract = &signing;
	int rc;

	if (!a->list) {
		rc = kb_ssh_agent_list(a->agent, &a->list, &a->n_list, NULL);
		if (rc == 0)
			return 0;
		if (rc < 0)
			a->n_list = 0;
	}
	*ret_next = true;
	if (a->identity >= a->n_list) {
		end_agent(ssh, a->n_list ? "'s keys" : " (no Ed25519 or ECDSA keys)");
		return 0;
	}
	signing.identity = &a->list[a->identity];
	rc = libssh2_userauth_publickey(ssh->session, ssh->user, signing.identity->blob,
		signing.identity->len, sign, &abstract);
	if (rc == LIBSSH2_ERROR_EAGAIN) {
		*ret_next = false;
		return 0;
	}
	a->identity++;
	return rc == 0;
}

static int try_key(struct kb_ssh *ssh, bool *ret_next)
{
	const char *file = ssh->keys[ssh->auth.key];
	int rc = libssh2_userauth_publickey_fromfile_ex(
		ssh->session, ssh->user, (unsigned)strlen(ssh->user), NULL, file, "");

	if (rc == LIBSSH2_ERROR_EAGAIN)
		return 0;
	*ret_next = true;
	ssh->auth.key++;
	if (rc == LIBSSH2_ERROR_FILE)
		note(ssh, file, " (unreadable, or with a passphrase)");
	else
		note(ssh, file, "");
	return rc == 0;
}

static int no_key(struct kb_ssh *ssh, struct kb_err *err)
{
	kb_err_set(err, KB_ERR_FAILED, "%s lets %s in with none of the keys tried: %s", ssh->where,
		ssh->user, *ssh->auth.tried ? ssh->auth.tried : "there were none");
	return kb_err_hint(err, "put a public key into its ~/.ssh/authorized_keys, or load the "
				"right one: ssh-add FILE");
}

int kb_ssh_auth_step(struct kb_ssh *ssh, struct kb_err *err)
{
	struct kb_ssh_auth *a = &ssh->auth;
	bool next = true;
	int r = 0;

	if (!a->listed) {
		r = list_methods(ssh, err);
		if (r != 0 || !a->listed)
			return r;
	}
	while (r == 0 && next) {
		next = false;
		if (a->agent)
			r = try_agent(ssh, &next);
		else if (ssh->keys[a->key])
			r = try_key(ssh, &next);
		else
			return no_key(ssh, err);
		/* Too many tries: the server hangs up, and then nothing more can be tried. */
		if (r == 0 && next && kb_ssh_is_fatal(libssh2_session_last_errno(ssh->session)))
			return no_key(ssh, err);
	}
	return r;
}

void kb_ssh_auth_finish(struct kb_ssh *ssh)
{
	kb_ssh_agent_close(ssh->auth.agent);
	ssh->auth.agent = NULL;
	ssh->auth.list = NULL;
}
