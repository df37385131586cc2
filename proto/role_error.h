/* struct kb_err ↔ RoleError, for the roles of kbsupd. */
#pragma once

#include "proto/role.pb-c.h"
#include "supervisor/base/err.h"

/* The message borrows err's text. */
static inline void kb_role_error_fill(Kb__Role__RoleError *msg, const struct kb_err *err)
{
	kb__role__role_error__init(msg);
	msg->code = (uint32_t)err->code;
	msg->message = (char *)err->msg;
	msg->hint = (char *)err->hint;
	msg->has_errnum = 1;
	msg->errnum = err->errnum;
}

/* Returns the negative code. */
static inline int kb_role_error_read(const Kb__Role__RoleError *msg, struct kb_err *err)
{
	enum kb_errcode code = msg->code > 0 && msg->code < KB_ERR_MAX_ ? (enum kb_errcode)msg->code
									: KB_ERR_FAILED;

	kb_err_set(err, code, "%s", msg->message);
	if (msg->hint && msg->hint[0])
		kb_err_hint(err, "%s", msg->hint);
	if (err)
		err->errnum = msg->errnum;
	return -(int)code;
}
