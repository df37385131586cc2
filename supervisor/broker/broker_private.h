/* What the files of the broker share.
 *
 *	broker.c	life of the role: main, the link, the end
 *	flow.c		one connection of the session: its events, its end
 *	ends.c		its bytes, both ways
 *	request.c	the heads of its requests: recorded, changed, refused
 *	secure.c	TLS on its two ends, where the policy asks for it
 *	proxy.c		what a connection to the proxy asks for (HTTP CONNECT and URLs, SOCKS 5)
 *	names.c		made-up addresses; dns_flow in flow.c answers with them
 *	decide.c	the policy's word on a name or an address
 *	resolve.c	names to addresses; dial.c: addresses to a connection
 *	inspect.c	what a connection's bytes say of whom they are for (TLS, HTTP)
 *	report.c	records
 *	vault.c		the values of secrets; grants.c: which of them may go where
 *	authority.c	certificates; tls_engine.c: one TLS connection
 *	edit.c, mask.c	what is changed of requests and of what is answered, pure
 *	http.c, tls.c, socks.c, dns.c	the parsers of foreign bytes, pure
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "audit/audit.h"
#include "authority.h"
#include "broker.h"
#include "dns.h"
#include "edit.h"
#include "http.h"
#include "mask.h"
#include "names.h"
#include "policy/policy.h"
#include "resolve.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/egress.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/loop.h"
#include "tls_engine.h"
#include "vault.h"

#define KB_WHY_MAX 256

struct kb_flow;
struct kb_lookup;

struct kb_broker {
	struct kb_loop *loop;
	struct kb_channel *main, *link; /* NULL: gone, or not yet */
	struct kb_bundle *bundle;
	struct kb_resolver *resolver;
	struct kb_names names;
	struct kb_vault *vault; /* NULL: the session has no secrets */
	struct kb_authority *authority;
	struct kb_edit_secret secrets[KB_SECRETS_MAX]; /* as in the bundle */
	size_t n_secrets;
	TAILQ_HEAD(kb_flows, kb_flow) flows;
	size_t n_flows;
	struct kb_block block; /* records on their way out */
	struct kb_source *age;
	uint64_t sent, limit; /* bytes towards the network; limit 0: none */
	uint32_t limit_rule;
	bool limit_hit, finished;
};

/* Whom a connection is for: a name, or an address when name is "". */
struct kb_target {
	char name[KB_HOST_MAX];
	struct kb_address address; /* len 0: not known yet */
	uint16_t port;
};

/* ---- decide.c -------------------------------------------------------------------------------- */

struct kb_ruling {
	bool allowed;
	int errnum;
	uint32_t rule;
	enum kb_record_level record;
	const char *const *http; /* the only requests that pass; NULL: any bytes */
	char why[KB_WHY_MAX];	 /* refused: in words */
};

/* May the session connect to it? For a name, the addresses behind it are judged by
 * kb_decide_address() once they are known. */
void kb_decide_target(
	const struct kb_broker *b, const struct kb_target *target, struct kb_ruling *ret);
/* May a name be looked up? */
void kb_decide_name(const struct kb_broker *b, const char *name, struct kb_ruling *ret);
/* May this address be reached on this port, given that its name may? Public ones may unless a rule
 * denies them; others only when a rule names them. Changes ruling only to refuse. */
bool kb_decide_address(const struct kb_broker *b, const struct kb_address *address, uint16_t port,
	struct kb_ruling *ruling);
/* "METHOD path" against the requests of a rule. */
bool kb_decide_request(const char *const *http, struct kb_slice method, struct kb_slice path);

/* ---- report.c -------------------------------------------------------------------------------- */

struct kb_report {
	enum kb_event event;
	const struct kb_target *target;
	const struct kb_ruling *ruling;
	int protocol;	     /* IPPROTO_*; 0: TCP */
	int errnum;	     /* allowed, and failed */
	const char *text;    /* or NULL */
	const char *secrets; /* names of those that were put in; or NULL */
	bool has_bytes;
	uint64_t up, down;
};
void kb_report(struct kb_broker *b, const struct kb_report *report);
void kb_report_flush(struct kb_broker *b);
/* "host:port" for people. */
#define KB_TARGET_TEXT (KB_HOST_MAX + 16)
void kb_target_text(const struct kb_target *target, char ret[KB_TARGET_TEXT]);

/* ---- grants.c -------------------------------------------------------------------------------- */

/* Bit i: secret i of the bundle, whose value is there. */
struct kb_grants {
	uint64_t over_tls; /* for requests that we say in TLS */
	uint64_t in_clear; /* for others */
	bool intercept;	   /* TLS to it is to be opened */
};
/* Once the bundle and the vault are there. */
int kb_grants_prepare(struct kb_broker *b, struct kb_err *err);
void kb_grants_find(
	const struct kb_broker *b, const struct kb_target *target, struct kb_grants *ret);
/* "A,B" */
void kb_grants_names(const struct kb_broker *b, uint64_t which, char *ret, size_t size);
/* What must not come back from a server that gets these. */
void kb_grants_mask(const struct kb_broker *b, uint64_t which, struct kb_mask *mask);

/* ---- dial.c ---------------------------------------------------------------------------------- */

struct kb_dial;
/* Called once. fd >= 0: connected, and yours. Otherwise ruling says why it is refused, or (allowed)
 * errnum why it failed. */
typedef void (*kb_dial_fn)(int fd, int errnum, void *arg);
/* target's address becomes the one that was dialed. All pointers outlive the dial. */
int kb_dial_start(struct kb_broker *b, struct kb_target *target, struct kb_ruling *ruling,
	kb_dial_fn fn, void *arg, struct kb_dial **ret, struct kb_err *err);
void kb_dial_cancel(struct kb_dial *dial); /* NULL is fine */

/* ---- inspect.c ------------------------------------------------------------------------------- */

enum kb_inspect_state {
	KB_INSPECT_FIRST, /* nothing seen */
	KB_INSPECT_TEXT,  /* part of a first line was passed: it must not become a request */
	KB_INSPECT_HEAD,  /* a request's head is due */
	KB_INSPECT_LENGTH,
	KB_INSPECT_CHUNKS,
	KB_INSPECT_UPGRADE, /* waits for the server's word */
	KB_INSPECT_LAST,    /* one request was all */
	KB_INSPECT_OPAQUE,  /* nothing more to be seen */
};

struct kb_inspect {
	enum kb_inspect_state state;
	const struct kb_target *target;
	const char *const *http;
	bool single; /* only one request: the proxy made it so */
	bool open;   /* TLS is to be opened */
	bool opened; /* and is */
	bool asked;  /* a request has passed */
	uint64_t left;
	uint8_t matched;    /* of the word that a first line must not have */
	uint8_t answer[12]; /* what the server said first after an upgrade was asked for */
	uint8_t n_answer;
	struct kb_http_chunks chunks;
	/* A request that may pass. Its head can be changed on its way: see kb_flow_request(). */
	struct kb_http_head head;
	bool drop_upgrade; /* of it: no other protocol may follow */
};

enum kb_inspect_word {
	KB_INSPECT_MORE,    /* wait for more bytes, or for the server */
	KB_INSPECT_FORWARD, /* *ret_len bytes may go */
	KB_INSPECT_REQUEST, /* so may these: they are the head of a request */
	KB_INSPECT_OPEN,    /* a TLS handshake, to be answered by us */
	KB_INSPECT_REFUSE,  /* why says why */
};
enum kb_inspect_word kb_inspect_client(struct kb_inspect *i, const uint8_t *data, size_t len,
	size_t *ret_len, char why[KB_WHY_MAX]);
/* Its first line is not whole, and nothing more came for a while, or comes at all: what is there
 * may go if it can be no request. */
void kb_inspect_idle(struct kb_inspect *i, const uint8_t *data, size_t len);
/* What the server says, while the answer to an upgrade is due. */
void kb_inspect_server(struct kb_inspect *i, const uint8_t *data, size_t len);

/* ---- A connection ---------------------------------------------------------------------------- */

enum kb_flow_state {
	KB_FLOW_ASKED, /* proxy, DNS: what is wanted is in its bytes */
	KB_FLOW_DIALING,
	KB_FLOW_OPEN,
	KB_FLOW_CLOSING, /* nothing goes to the network any more */
};

enum kb_proxy { KB_PROXY_NONE, KB_PROXY_CONNECT, KB_PROXY_URL, KB_PROXY_SOCKS };

struct kb_flow {
	struct kb_broker *broker;
	TAILQ_ENTRY(kb_flow) entry;
	struct kb_stream *stream;
	enum kb_egress_kind kind;
	enum kb_flow_state state;
	enum kb_proxy proxy;
	bool socks_greeted;
	struct kb_target target;
	struct kb_ruling ruling;
	struct kb_grants grants;
	struct kb_inspect inspect;
	struct kb_dial *dial;
	int fd;
	struct kb_source *io, *linger, *patience;
	struct kb_buf in;	/* from the session, not looked at; plain */
	size_t ours;		/* bytes at the front of in that we put there */
	struct kb_buf out;	/* to the network, looked at; plain */
	struct kb_buf back;	/* to the session, of our own making or looked at; plain */
	struct kb_tls *inner;	/* towards the session; NULL: as it comes */
	struct kb_tls *outer;	/* towards the network */
	size_t uncredited;	/* ciphertext of inner's, not reported to the stream as consumed */
	struct kb_mask *mask;	/* a secret was sent: it must not come back */
	bool securing, opening; /* outer does not stand yet; inner follows it */
	bool outer_over;	/* it was told that no more comes */
	bool client_eof;	/* of the stream */
	bool input_over;	/* nothing more comes from the session */
	bool server_eof, eof_sent, shut, connected;
	uint64_t up, down;
	struct kb_lookup *lookups; /* DNS: answers that are due */
};

/* ---- flow.c ---------------------------------------------------------------------------------- */

int kb_flow_create(struct kb_broker *b, uint32_t stream, enum kb_egress_kind kind,
	const struct kb_target *target, struct kb_err *err);
struct kb_flow *kb_flow_find(struct kb_broker *b, uint32_t stream);
/* The session takes no more. */
void kb_flow_cancelled(struct kb_flow *f);
/* End it towards the network, and record what went over it. */
void kb_flow_stop(struct kb_flow *f);
/* The program must notice that its connection was cut. */
void kb_flow_cut(struct kb_flow *f);
/* Not allowed, or not any more: recorded, and said to the program where it can be. */
void kb_flow_refuse(struct kb_flow *f, enum kb_event event, const char *why);
/* The server is not who it should be, or speaks no TLS. */
void kb_flow_fail_tls(struct kb_flow *f, const struct kb_err *why);
void kb_flow_destroy(struct kb_flow *f);
/* The last thing every event of a flow does: ends what is at its end. The flow may be gone. */
void kb_flow_settle(struct kb_flow *f);
/* What is wanted is known: decide and dial. */
void kb_flow_connect(struct kb_flow *f);
/* The limit of bytes sent is reached: no connection sends any more. */
void kb_flow_reach_limit(struct kb_flow *f);

/* ---- ends.c ---------------------------------------------------------------------------------- */

/* Bytes for the session, of our own making. */
void kb_flow_reply(struct kb_flow *f, const void *data, size_t len);
/* Take n bytes off the front of in. */
void kb_flow_take(struct kb_flow *f, size_t n);
/* What waits for the session goes, as far as it is taken. */
void kb_flow_flush(struct kb_flow *f);
/* How much may be read from the server now. */
size_t kb_flow_room(struct kb_flow *f);
void kb_flow_read(struct kb_flow *f);
/* What came from the session goes to the network, as far as it may and is taken. */
void kb_flow_push(struct kb_flow *f);
/* outer's own bytes. */
void kb_flow_send_tls(struct kb_flow *f);
/* Bytes wait to be sent. */
bool kb_flow_has_output(const struct kb_flow *f);
void kb_flow_drop_input(struct kb_flow *f);

/* ---- request.c ------------------------------------------------------------------------------- */

/* A request that may pass: recorded, its head appended to out, with the secrets it is granted. 1:
 * it may not after all, and why says why. */
int kb_flow_request(struct kb_flow *f, const uint8_t *head, const struct kb_http_head *parsed,
	char why[KB_WHY_MAX], struct kb_err *err);

/* ---- secure.c -------------------------------------------------------------------------------- */

/* Speak TLS to the server; open: and to the session after it. */
void kb_secure_begin(struct kb_flow *f, bool open);
void kb_secure_advance(struct kb_flow *f);
void kb_secure_late(struct kb_flow *f);
/* From the ciphertext that came to in. */
int kb_secure_decrypt(struct kb_flow *f, struct kb_err *err);

/* ---- proxy.c, dns_flow.c --------------------------------------------------------------------- */

/* proxy.c: look at the bytes so far. */
void kb_proxy_feed(struct kb_flow *f);
/* It is connected, or not: tell the client in its protocol. text: one line. */
void kb_proxy_connected(struct kb_flow *f);
void kb_proxy_failed(struct kb_flow *f, bool refused, const char *text, const char *remedy);
/* An answer in HTTP, and no more. */
void kb_proxy_answer(struct kb_flow *f, const char *status, const char *text, const char *remedy);

/* dns_flow.c */
void kb_dns_feed(struct kb_flow *f);
void kb_dns_forget(struct kb_flow *f);

/* broker.c */
void kb_broker_tell(struct kb_broker *b, enum kb_egress_kind kind, uint32_t stream);
