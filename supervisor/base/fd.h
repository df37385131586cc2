/* File descriptors and files. Every fd is close-on-exec from birth. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "err.h"

int kb_fd_nonblock(int fd, struct kb_err *err);
int kb_fd_cloexec(int fd, bool on, struct kb_err *err);
/* A connected pair of stream (seqpacket if so asked) unix sockets. */
int kb_fd_socketpair(bool seqpacket, int ret[2], struct kb_err *err);
/* A TCP socket that listens on 127.0.0.1, on *port; 0: a free one is chosen and put there. */
int kb_fd_listen_loopback(unsigned *port, int *ret, struct kb_err *err);
/* A waiting connection of a listening socket, non-blocking; -1 with errno when there is none. */
int kb_fd_accept(int listener);
/* One message with up to KB_FD_PASS_MAX fds over a unix socket; for small handshakes.
 * Blocking-safe: retries EINTR only. recv returns the byte count (0 at end of file); unused ret_fds
 * are -1. */
#define KB_FD_PASS_MAX 8
int kb_fd_send(
	int sock, const void *data, size_t len, const int *fds, size_t n_fds, struct kb_err *err);
ssize_t kb_fd_recv(
	int sock, void *data, size_t len, int *ret_fds, size_t n_fds, struct kb_err *err);
/* Everything, or an error; EINTR is retried. For blocking descriptors. */
int kb_fd_write_all(int fd, const void *data, size_t len, struct kb_err *err);
int kb_fd_read_exact(int fd, void *data, size_t len, struct kb_err *err);
/* The whole file, at most max bytes (KB_ERR_LIMIT past it). buf must be initialised. */
int kb_file_read(const char *path, struct kb_buf *buf, struct kb_err *err);
/* Appears whole or not at all: written beside, fsynced, renamed. */
int kb_file_write_atomic(
	const char *path, const void *data, size_t len, mode_t mode, struct kb_err *err);
/* The same without waiting for the disk: whoever reads finds the old or the new one, but after a
 * loss of power it may be neither. For what is written again anyway. */
int kb_file_write_soon(
	const char *path, const void *data, size_t len, mode_t mode, struct kb_err *err);
/* Create path and its missing parents with this mode. */
int kb_mkdirs(const char *path, mode_t mode, struct kb_err *err);
/* Remove a tree without following symlinks or crossing mounts; missing is fine. */
int kb_rmtree(const char *path, struct kb_err *err);
/* Uid, gid and pid of the peer of a unix socket. */
struct kb_peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
};
int kb_fd_peer(int sock, struct kb_peer *ret, struct kb_err *err);
/* Close every fd from `first` up that is not in keep[] (sorted or not). */
int kb_fd_close_from(int first, const int *keep, size_t n_keep, struct kb_err *err);
