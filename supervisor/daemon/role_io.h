/* Messages by hand, for roles that do one thing at a time and have no loop. Blocking. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/err.h"

/* One message and the fd that came along (-1: none); free(*ret). KB_ERR_CLOSED at the end. */
int kb_role_receive(int fd, uint8_t **ret, size_t *ret_len, int *ret_fd, struct kb_err *err);
int kb_role_send(int fd, const ProtobufCMessage *msg, struct kb_err *err);
