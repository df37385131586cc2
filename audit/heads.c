#include "heads.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

static const char *const kind_names[] = {
	[KB_HEAD_BEGIN] = "begin",
	[KB_HEAD_MARK] = "mark",
	[KB_HEAD_END] = "end",
	[KB_HEAD_PRUNED] = "pruned",
};

static void to_hex(const uint8_t *data, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[data[i] >> 4];
		out[2 * i + 1] = digits[data[i] & 15];
	}
	out[2 * len] = '\0';
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool from_hex(const char *text, uint8_t *out, size_t len)
{
	if (strlen(text) != 2 * len)
		return false;
	for (size_t i = 0; i < len; i++) {
		int high = nibble(text[2 * i]), low = nibble(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

void kb_head_format(const struct kb_head *head, char ret[KB_HEAD_LINE_MAX])
{
	char id[KB_ULID_TEXT], hash[2 * KB_HASH_SIZE + 1];

	kb_ulid_format(head->session, id);
	to_hex(head->hash, KB_HASH_SIZE, hash);
	snprintf(ret, KB_HEAD_LINE_MAX, "head 1 %s %" PRIu64 " %s %" PRIu64 " %s", id,
		head->records, kind_names[head->kind], head->time, hash);
}

/* ---- Keys ------------------------------------------------------------------------------------ */

static int write_pem(const char *path, EVP_PKEY *key, bool secret, struct kb_err *err)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data;
	long len;
	int r, ok = bio && (secret ? PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL)
				   : PEM_write_bio_PUBKEY(bio, key));

	if (!ok) {
		BIO_free(bio);
		return kb_err_set(err, KB_ERR_FAILED, "the crypto library could not write a key");
	}
	len = BIO_get_mem_data(bio, &data);
	r = kb_file_write_atomic(path, data, (size_t)len, secret ? 0600 : 0644, err);
	BIO_free(bio);
	return r;
}

static EVP_PKEY *read_pem(const char *path, bool secret)
{
	FILE *file = fopen(path, "re");
	EVP_PKEY *key = NULL;

	if (!file)
		return NULL;
	key = secret ? PEM_read_PrivateKey(file, NULL, NULL, NULL)
		     : PEM_read_PUBKEY(file, NULL, NULL, NULL);
	fclose(file);
	return key;
}

struct kb_signer {
	EVP_PKEY *key;
	int fd;
};

static int make_key(const char *key_path, const char *pub_path, EVP_PKEY **ret, struct kb_err *err)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	int r;

	if (!key)
		return kb_err_set(err, KB_ERR_FAILED, "the crypto library has no Ed25519");
	r = write_pem(key_path, key, true, err);
	if (r == 0)
		r = write_pem(pub_path, key, false, err);
	if (r < 0) {
		EVP_PKEY_free(key);
		return r;
	}
	*ret = key;
	return 0;
}

static int signer_open(struct kb_signer *signer, const char *dir, struct kb_err *err)
{
	KB_FREE char *key = kb_asprintf("%s.key", dir), *pub = kb_asprintf("%s.pub", dir);
	KB_FREE char *heads = kb_asprintf("%s.heads", dir);
	int r;

	if (!key || !pub || !heads)
		return kb_err_nomem(err);
	signer->key = read_pem(key, true);
	if (!signer->key && access(key, F_OK) == 0) {
		kb_err_set(err, KB_ERR_INVALID, "the audit key %s cannot be read", key);
		return kb_err_hint(err, "restore it, or move it away to make a new one");
	}
	if (!signer->key && (r = make_key(key, pub, &signer->key, err)) < 0)
		return r;
	signer->fd = open(heads, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	return signer->fd < 0 ? kb_err_sys(err, errno, "%s could not be opened", heads) : 0;
}

int kb_signer_open(const char *dir, struct kb_signer **ret, struct kb_err *err)
{
	struct kb_signer *signer = calloc(1, sizeof(*signer));
	int r;

	if (!signer)
		return kb_err_nomem(err);
	signer->fd = -1;
	r = signer_open(signer, dir, err);
	if (r < 0) {
		kb_signer_close(signer);
		return r;
	}
	*ret = signer;
	return 0;
}

void kb_signer_close(struct kb_signer *signer)
{
	if (!signer)
		return;
	EVP_PKEY_free(signer->key);
	kb_close(&signer->fd);
	free(signer);
}

int kb_signer_append(struct kb_signer *signer, const struct kb_head *head, struct kb_err *err)
{
	char line[KB_HEAD_LINE_MAX + 2 * KB_SIGNATURE_SIZE + 3];
	uint8_t signature[KB_SIGNATURE_SIZE];
	size_t len, signature_len = sizeof(signature);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok;
	int r;

	kb_head_format(head, line);
	len = strlen(line);
	ok = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, signer->key) == 1 &&
	     EVP_DigestSign(ctx, signature, &signature_len, (const uint8_t *)line, len) == 1;
	EVP_MD_CTX_free(ctx);
	if (!ok)
		return kb_err_set(err, KB_ERR_FAILED, "the crypto library could not sign");
	line[len] = ' ';
	to_hex(signature, sizeof(signature), line + len + 1);
	len += 1 + 2 * sizeof(signature);
	line[len++] = '\n';
	/* A line that a full disk cut short has no newline: begin a new one after it. */
	r = kb_fd_write_all(signer->fd, line, len, err);
	if (r == 0 && kb_os_sync(signer->fd) < 0)
		r = kb_err_sys(err, errno, "a signed head could not be written");
	if (r < 0)
		(void)!write(signer->fd, "\n", 1);
	return r;
}

/* ---- Reading --------------------------------------------------------------------------------- */

static bool verify(EVP_PKEY *key, const char *line, size_t len, const char *signature_hex)
{
	uint8_t signature[KB_SIGNATURE_SIZE];
	EVP_MD_CTX *ctx;
	bool ok;

	if (!key || !from_hex(signature_hex, signature, sizeof(signature)))
		return false;
	ctx = EVP_MD_CTX_new();
	ok = ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
	     EVP_DigestVerify(ctx, signature, sizeof(signature), (const uint8_t *)line, len) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

static bool parse_fields(char *fields[], struct kb_head *ret)
{
	size_t kind = 0;

	while (kind < KB_ARRAY_LEN(kind_names) && strcmp(fields[4], kind_names[kind]) != 0)
		kind++;
	ret->kind = (enum kb_head_kind)kind;
	return kind < KB_ARRAY_LEN(kind_names) && strcmp(fields[0], "head") == 0 &&
	       strcmp(fields[1], "1") == 0 && kb_ulid_parse(fields[2], ret->session) &&
	       kb_parse_u64(fields[3], &ret->records) && kb_parse_u64(fields[5], &ret->time) &&
	       from_hex(fields[6], ret->hash, KB_HASH_SIZE);
}

/* A line that is no head (cut short by a crash) is skipped: a head that is missing is noticed where
 * it matters, and one that was changed does not verify. */
static bool parse_line(char *line, EVP_PKEY *key, struct kb_head *ret)
{
	KB_FREE char *copy = strdup(line);
	char *fields[8], *save = NULL;
	size_t n = 0;

	if (!copy)
		return false;
	for (char *word = strtok_r(line, " ", &save); word && n < KB_ARRAY_LEN(fields);
		word = strtok_r(NULL, " ", &save))
		fields[n++] = word;
	*ret = (struct kb_head){0};
	if (n != KB_ARRAY_LEN(fields) || strtok_r(NULL, " ", &save) || !parse_fields(fields, ret))
		return false;
	snprintf(ret->signature, sizeof(ret->signature), "%s", fields[7]);
	ret->genuine = verify(key, copy, (size_t)(fields[7] - line) - 1, fields[7]);
	return true;
}

static int add(struct kb_heads *heads, const struct kb_head *head, struct kb_err *err)
{
	void *mem;

	if ((heads->n & (heads->n - 1)) == 0) {
		mem = realloc(heads->list, (heads->n ? 2 * heads->n : 1) * sizeof(*heads->list));
		if (!mem)
			return kb_err_nomem(err);
		heads->list = mem;
	}
	heads->list[heads->n++] = *head;
	return 0;
}

static int by_session(const void *a, const void *b)
{
	const struct kb_head *x = a, *y = b;
	int order = memcmp(x->session, y->session, KB_ULID_SIZE);

	if (order)
		return order;
	if (x->records != y->records)
		return x->records < y->records ? -1 : 1;
	return (int)x->kind - (int)y->kind;
}

static int parse(
	struct kb_heads *heads, char *text, EVP_PKEY *key, bool anchored, struct kb_err *err)
{
	struct kb_head head;
	char *save = NULL;
	int r = 0;

	for (char *line = strtok_r(text, "\n", &save); line && r == 0;
		line = strtok_r(NULL, "\n", &save)) {
		if (!parse_line(line, key, &head))
			continue;
		head.anchored = anchored;
		r = add(heads, &head, err);
	}
	if (heads->n)
		qsort(heads->list, heads->n, sizeof(*heads->list), by_session);
	return r;
}

int kb_heads_read(const char *dir, struct kb_heads *ret, struct kb_err *err)
{
	KB_FREE char *path = kb_asprintf("%s.heads", dir), *pub = kb_asprintf("%s.pub", dir);
	KB_FREE char *text = NULL;
	struct kb_buf buf;
	size_t len = KB_PUBLIC_SIZE;
	EVP_PKEY *key;
	int r = 0;

	*ret = (struct kb_heads){0};
	if (!path || !pub)
		return kb_err_nomem(err);
	key = read_pem(pub, false);
	ret->has_key = key && EVP_PKEY_get_raw_public_key(key, ret->key, &len) == 1;
	kb_buf_init(&buf, KB_HEADS_MAX);
	if (access(path, F_OK) == 0)
		r = kb_file_read(path, &buf, err);
	if (r == 0 && !(text = kb_buf_steal_string(&buf)))
		r = kb_err_nomem(err);
	kb_buf_finish(&buf);
	if (r == 0)
		r = parse(ret, text, key, false, err);
	EVP_PKEY_free(key);
	if (r < 0)
		kb_heads_finish(ret);
	return r;
}

int kb_heads_add_anchor(struct kb_heads *heads, const char *text, size_t len, struct kb_err *err)
{
	static const char magic[] = "kbsup-anchor 1 ";
	KB_FREE char *copy = strndup(text, len);
	uint8_t raw[KB_PUBLIC_SIZE];
	char *first_end = copy ? strchr(copy, '\n') : NULL;
	EVP_PKEY *key;
	int r;

	if (!copy)
		return kb_err_nomem(err);
	if (first_end)
		*first_end = '\0';
	if (!first_end || strncmp(copy, magic, strlen(magic)) != 0 ||
		!from_hex(copy + strlen(magic), raw, sizeof(raw))) {
		kb_err_set(err, KB_ERR_INVALID, "this is not an anchor");
		return kb_err_hint(err, "one is made with: kbsup audit verify --export-anchor");
	}
	heads->other_key = !heads->has_key || memcmp(raw, heads->key, sizeof(raw)) != 0;
	key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw, sizeof(raw));
	r = parse(heads, first_end + 1, key, true, err);
	EVP_PKEY_free(key);
	return r;
}

int kb_heads_write_anchor(const struct kb_heads *heads, FILE *out, struct kb_err *err)
{
	char hex[2 * KB_PUBLIC_SIZE + 1], line[KB_HEAD_LINE_MAX];
	const struct kb_head *newest;
	int ok;

	to_hex(heads->key, sizeof(heads->key), hex);
	ok = fprintf(out, "kbsup-anchor 1 %s\n", hex);
	for (size_t i = 0, n; i < heads->n && ok >= 0; i += n) {
		newest = NULL;
		kb_heads_of(heads, heads->list[i].session, &n);
		for (size_t k = i; k < i + n; k++)
			if (heads->list[k].genuine)
				newest = &heads->list[k];
		if (!newest)
			continue;
		kb_head_format(newest, line);
		ok = fprintf(out, "%s %s\n", line, newest->signature);
	}
	return ok < 0 || fflush(out) != 0 ? kb_err_set(err, KB_ERR_CLOSED, "the output is closed")
					  : 0;
}

void kb_heads_finish(struct kb_heads *heads)
{
	free(heads->list);
	*heads = (struct kb_heads){0};
}

const struct kb_head *kb_heads_of(
	const struct kb_heads *heads, const uint8_t session[KB_ULID_SIZE], size_t *ret_n)
{
	size_t low = 0, high = heads->n, mid, from;

	while (low < high) {
		mid = (low + high) / 2;
		if (memcmp(heads->list[mid].session, session, KB_ULID_SIZE) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	for (from = low;
		low < heads->n && memcmp(heads->list[low].session, session, KB_ULID_SIZE) == 0;
		low++)
		;
	*ret_n = low - from;
	return heads->list ? heads->list + from : NULL;
}
