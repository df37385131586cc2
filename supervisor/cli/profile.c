#include "profile.h"

#include <string.h>

void kb_profile_finish(struct kb_profile *profile)
{
	kb_policy_destroy(profile->loaded);
	*profile = (struct kb_profile){0};
}

static void read_agent(struct kb_profile *profile, const char *agent)
{
	const struct kb_agent *agents;
	size_t n = kb_policy_agents(profile->loaded, &agents);

	for (size_t i = 0; i < n; i++) {
		if (strcmp(agents[i].name, agent))
			continue;
		profile->described = true;
		if (strcmp(agents[i].policy, kb_policy_name(profile->loaded)))
			profile->policy = agents[i].policy;
		if (agents[i].command && agents[i].command[0])
			profile->command = agents[i].command;
		profile->package_kind = agents[i].package_kind;
		profile->package = agents[i].package;
		profile->programs = agents[i].programs;
		profile->context = agents[i].context;
	}
}

int kb_profile_load(const struct kb_policies *policies, const char *agent, struct kb_profile *ret,
	struct kb_err *err)
{
	int r;

	*ret = (struct kb_profile){.policy = agent};
	r = kb_policies_load(policies, agent, &ret->loaded, err);
	if (r == 0)
		read_agent(ret, agent);
	return r;
}

int kb_profile_peek(const struct kb_policies *policies, const char *agent, struct kb_profile *ret,
	struct kb_err *err)
{
	struct kb_diags *diags KB_DIAGS_CLEANUP = kb_diags_create();
	int r;

	*ret = (struct kb_profile){.policy = agent};
	if (!diags)
		return kb_err_nomem(err);
	r = kb_policy_load(agent, &policies->options, &ret->loaded, diags, err);
	if (r == 0)
		read_agent(ret, agent);
	return r;
}
