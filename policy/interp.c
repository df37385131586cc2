/* Runs emitted programs: explain and diff show what the program does, not what it was made from. */

#include "policy/ask.h"

static uint32_t load(uint32_t offset, uint32_t arch, int nr, const uint64_t args[6])
{
	if (offset == 0)
		return (uint32_t)nr;
	if (offset == 4)
		return arch;
	if (offset < 16 || offset >= 64)
		return 0;
	return (uint32_t)(args[(offset - 16) / 8] >> ((offset & 4) ? 32 : 0));
}

static bool taken(uint16_t code, uint32_t a, uint32_t k)
{
	switch (BPF_OP(code)) {
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

uint32_t kb_program_run(const struct kb_program *program, uint32_t arch, int nr,
	const uint64_t args[6], size_t *ret_insn)
{
	uint32_t a = 0;

	for (size_t pc = 0; pc < program->len; pc++) {
		const struct sock_filter *insn = &program->insns[pc];

		switch (BPF_CLASS(insn->code)) {
		case BPF_LD:
			a = load(insn->k, arch, nr, args);
			break;
		case BPF_ALU:
			a &= insn->k;
			break;
		case BPF_JMP:
			if (BPF_OP(insn->code) == BPF_JA)
				pc += insn->k;
			else
				pc += taken(insn->code, a, insn->k) ? insn->jt : insn->jf;
			break;
		default:
			*ret_insn = pc;
			return insn->k;
		}
	}
	*ret_insn = program->len - 1;
	return 0;
}
