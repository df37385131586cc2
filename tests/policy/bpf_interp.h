/* A cBPF interpreter for seccomp programs, written from the kernel's rules for them: what the
 * filter machine may do, and nothing else. Tests only. */
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bpf_run {
	uint32_t value; /* what the program returned */
	size_t at;	/* index of the return that was reached */
	size_t steps;
	bool loaded_arg; /* an argument was looked at */
};

/* Is it a program the kernel would take? NULL, or what is wrong. */
const char *bpf_validate(const struct sock_filter *insns, size_t len);
/* The program must be valid. */
struct bpf_run bpf_interpret(const struct sock_filter *insns, const struct seccomp_data *data);
