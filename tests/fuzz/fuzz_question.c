/* Any bytes as a question to a policy. */
#include <linux/audit.h>
#include <stdlib.h>
#include <string.h>

#include "policy/policy.h"

static struct kb_bundle *shell(const struct kb_policy_options *options)
{
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_bundle *bundle = NULL;
	struct kb_buf buf;

	kb_buf_init(&buf, 8 << 20);
	if (kb_policy_load("shell", options, &policy, diags, NULL) < 0 ||
		kb_policy_lower(policy, options, &buf, diags, NULL) < 0 ||
		kb_bundle_parse(kb_buf_data(&buf), kb_buf_len(&buf), &bundle, NULL) < 0)
		abort();
	kb_buf_finish(&buf);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
	return bundle;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct kb_policy_options options = {
		.home = "/home/u", .workspace = "/home/u/w", .user = "u"};
	static struct kb_bundle *bundle;
	char *question = malloc(size + 1);
	struct kb_buf out;

	if (!bundle)
		bundle = shell(&options);
	memcpy(question, data, size);
	question[size] = '\0';
	for (int json = 0; json < 2; json++) {
		kb_buf_init(&out, 1 << 20);
		kb_bundle_explain(
			bundle, &options, AUDIT_ARCH_X86_64, question, json, &out, NULL, NULL);
		kb_buf_finish(&out);
	}
	free(question);
	return 0;
}
