#include "tests/policy/bpf_interp.h"

#include <linux/bpf_common.h>
#include <string.h>

#define INSNS_MAX 4096

static const char *validate_jump(const struct sock_filter *insn, size_t at, size_t len)
{
	if (BPF_OP(insn->code) == BPF_JA)
		return insn->k >= len - at - 1 ? "a jump past the end" : NULL;
	switch (insn->code) {
	case BPF_JMP | BPF_JEQ | BPF_K:
	case BPF_JMP | BPF_JGE | BPF_K:
	case BPF_JMP | BPF_JGT | BPF_K:
	case BPF_JMP | BPF_JSET | BPF_K:
		break;
	default:
		return "an unknown jump";
	}
	return at + 1 + insn->jt >= len || at + 1 + insn->jf >= len ? "a jump past the end" : NULL;
}

static const char *validate_insn(const struct sock_filter *insn, size_t at, size_t len)
{
	switch (insn->code) {
	case BPF_LD | BPF_W | BPF_ABS:
		return insn->k % 4 || insn->k >= sizeof(struct seccomp_data) ? "a load outside"
									     : NULL;
	case BPF_ALU | BPF_AND | BPF_K:
	case BPF_ALU | BPF_OR | BPF_K:
	case BPF_ALU | BPF_XOR | BPF_K:
	case BPF_RET | BPF_K:
	case BPF_ST:
	case BPF_LD | BPF_MEM:
	case BPF_MISC | BPF_TAX:
	case BPF_MISC | BPF_TXA:
		return NULL;
	default:
		return BPF_CLASS(insn->code) == BPF_JMP ? validate_jump(insn, at, len)
							: "an unknown instruction";
	}
}

const char *bpf_validate(const struct sock_filter *insns, size_t len)
{
	if (!len || len > INSNS_MAX)
		return "the wrong length";
	for (size_t i = 0; i < len; i++) {
		const char *why = validate_insn(&insns[i], i, len);

		if (why)
			return why;
	}
	return BPF_CLASS(insns[len - 1].code) == BPF_RET ? NULL : "no return at the end";
}

static bool jump_taken(uint16_t op, uint32_t a, uint32_t k)
{
	switch (op) {
	case BPF_JEQ:
		return a == k;
	case BPF_JGE:
		return a >= k;
	case BPF_JGT:
		return a > k;
	default:
		return (a & k) != 0;
	}
}

static uint32_t alu(uint16_t op, uint32_t a, uint32_t k)
{
	switch (op) {
	case BPF_AND:
		return a & k;
	case BPF_OR:
		return a | k;
	default:
		return a ^ k;
	}
}

struct bpf_run bpf_interpret(const struct sock_filter *insns, const struct seccomp_data *data)
{
	struct bpf_run run = {0};
	uint32_t a = 0, x = 0, mem[16] = {0};

	for (size_t pc = 0;; pc++, run.steps++) {
		const struct sock_filter *insn = &insns[pc];

		switch (BPF_CLASS(insn->code)) {
		case BPF_LD:
			if (BPF_MODE(insn->code) == BPF_MEM)
				a = mem[insn->k % 16];
			else
				memcpy(&a, (const char *)data + insn->k, sizeof(a));
			run.loaded_arg |= BPF_MODE(insn->code) == BPF_ABS && insn->k >= 16;
			break;
		case BPF_ST:
			mem[insn->k % 16] = a;
			break;
		case BPF_MISC:
			if (BPF_MISCOP(insn->code) == BPF_TAX)
				x = a;
			else
				a = x;
			break;
		case BPF_ALU:
			a = alu(BPF_OP(insn->code), a, insn->k);
			break;
		case BPF_JMP:
			if (BPF_OP(insn->code) == BPF_JA)
				pc += insn->k;
			else
				pc += jump_taken(BPF_OP(insn->code), a, insn->k) ? insn->jt
										 : insn->jf;
			break;
		default:
			run.value = insn->k;
			run.at = pc;
			return run;
		}
	}
}
