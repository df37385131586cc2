/* One lasting byte stream over many short-lived carriers: each end joins a local stream socket with
 * whatever carrier there is at the time. When a carrier breaks, nothing is lost: what the peer has
 * not acknowledged is kept (KB_RESUME_WINDOW bytes, then the local side is held up) and sent again
 * over the next one. A byte is acknowledged once it was written to the local socket, so a slow
 * reader holds up its peer and nobody else.
 *
 * Packets (packet.h) between two ends; `offset` counts the stream's bytes, its end as one more:
 *
 *	SYN	a dialler asks for a stream: LinkSyn of proto/link.proto
 *	SYNACK	the answer: LinkSynAck
 *	DATA	bytes from `offset` on
 *	FIN	the stream ends at `offset`
 *	ACK	everything before `offset` has been handed on
 *	PING	as ACK, and wants one back
 *
 * Who dials, who answers, and how long one waits for another carrier, is decided above: both sides
 * of the handshake tell what they have handed on, then kb_resume_carry() goes on from there.
 */
#pragma once

#include "carrier.h"

#define KB_RESUME_WINDOW  (1u << 20) /* bytes kept until they are acknowledged */
#define KB_RESUME_PING_MS 5000
#define KB_RESUME_DEAD_MS 20000 /* of silence: the carrier is given up */

enum kb_resume_kind {
	KB_RESUME_SYN = 1,
	KB_RESUME_SYNACK,
	KB_RESUME_DATA,
	KB_RESUME_FIN,
	KB_RESUME_ACK,
	KB_RESUME_PING,
};

#define KB_RESUME_PROTOCOL 1
#define KB_RESUME_ID	   16 /* bytes of a nonce, and of a stream's name */

enum kb_resume_verdict {
	KB_RESUME_GOES_ON, /* the stream is there: begun, or resumed */
	KB_RESUME_UNKNOWN, /* it is not, or not any more */
	KB_RESUME_OTHER,   /* another protocol is spoken here */
	KB_RESUME_FAILED,  /* it could not be begun */
};

struct kb_resume;

struct kb_resume_ops {
	/* The carrier broke, fell silent or spoke nonsense, and is gone: find another. */
	void (*stranded)(struct kb_resume *resume, const struct kb_err *why, void *arg);
	/* A SYN or SYNACK on a carrier that was thought to be this stream's. The callee may take it
	 * back with kb_resume_release(). */
	void (*handshake)(struct kb_resume *resume, const struct kb_packet *packet, void *arg);
	/* Both directions are at their end. Called once; destroy it. */
	void (*over)(struct kb_resume *resume, void *arg);
};

/* Takes fd, a connected stream socket, also on failure. */
int kb_resume_create(struct kb_loop *loop, int fd, const struct kb_resume_ops *ops, void *arg,
	struct kb_resume **ret, struct kb_err *err);
/* Closes everything at once. Allowed in any callback. NULL is fine. */
void kb_resume_destroy(struct kb_resume *resume);
/* What to tell the peer in the handshake: what it need not keep. */
uint64_t kb_resume_handed(const struct kb_resume *resume);
/* What the peer is known to have. */
uint64_t kb_resume_peer_has(const struct kb_resume *resume);
/* Go on over this carrier (taken) from where the peer is; one it had is dropped. KB_ERR_INVALID
 * when the peer cannot have that: then the carrier is gone and the stream lost. */
int kb_resume_carry(struct kb_resume *resume, struct kb_carrier *carrier, uint64_t peer_has,
	struct kb_err *err);
/* Its carrier, now the caller's; NULL when it has none. */
struct kb_carrier *kb_resume_release(struct kb_resume *resume);
bool kb_resume_is_carried(const struct kb_resume *resume);
