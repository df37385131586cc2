/* A real OpenSSH server on loopback, with its own configuration, keys and port. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/err.h"

struct sshd {
	char *dir;			 /* everything of it, and home of what a test makes */
	char *user;			 /* who may log in: whoever runs it */
	char *host_key, *other_host_key; /* public: "ssh-ed25519 AAAA…" */
	char *key, *other_key;		 /* files with private keys; the other one opens nothing */
	unsigned port;
	pid_t pid;
};

/* Become who the test runs as: "root", or "user" (made when missing). False, and the reason
 * printed, when this machine cannot. */
bool sshd_select(int argc, char **argv);
/* Fails the test when it does not come up. */
void sshd_start(struct sshd *s);
void sshd_stop(struct sshd *s);
/* Runs a program to its end; its exit status. */
int sshd_run(const char *const *argv);

/* Bytes that repeat nowhere, the same each time. */
void sshd_random(uint8_t *data, size_t len);
/* Listens on loopback. */
int sshd_listener(unsigned *port);
/* A process that sends back whatever connections to the listener bring. */
pid_t sshd_echo(int fd);
/* Send len bytes there and compare what comes back; 0 when it is the same. In a process of its own.
 */
int sshd_talk(unsigned port, size_t len);
