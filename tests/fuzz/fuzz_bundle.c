/* Any bytes as a policy bundle: refused, or usable by everything that takes one. */
#include <linux/audit.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "policy/policy.h"
#include "tests/policy/bpf_interp.h"

static void use(const struct kb_bundle *bundle)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(443)};
	struct kb_diff_result difference;
	struct kb_program program;
	uint64_t args[6] = {1, 2, 3, 4, 5, 6};
	struct kb_buf out;

	kb_bundle_decide_path(bundle, KB_FS_READ | KB_FS_WRITE, "/home/u/.ssh/id");
	kb_bundle_decide_net(
		bundle, KB_NET_CONNECT, IPPROTO_TCP, (struct sockaddr *)&address, sizeof(address));
	for (int nr = 0; nr < 500; nr++)
		kb_bundle_decide(bundle, AUDIT_ARCH_X86_64, nr, args);
	kb_buf_init(&out, 16 << 20);
	for (int format = KB_EMIT_BPF; format <= KB_EMIT_JSON; format++)
		kb_bundle_write(bundle, (enum kb_emit_format)format, AUDIT_ARCH_X86_64,
			KB_EMIT_PLAIN, &out, NULL);
	kb_bundle_diff(bundle, bundle, AUDIT_ARCH_X86_64, false, &out, &difference, NULL);
	if (difference.newly_allowed || difference.newly_denied || difference.changed)
		abort();
	if (kb_bundle_emit(bundle, AUDIT_ARCH_X86_64, KB_EMIT_NOTIFY, &program, NULL) == 0) {
		if (bpf_validate(program.insns, program.len))
			abort();
		kb_program_disasm(&program, bundle, &out, NULL);
		kb_program_finish(&program);
	}
	kb_buf_finish(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_bundle *bundle = NULL;

	if (kb_bundle_parse(data, size, &bundle, NULL) < 0)
		return 0;
	use(bundle);
	kb_bundle_destroy(bundle);
	return 0;
}
