/* The commands, each defined in the file that carries it out. */
#pragma once

#include "command.h"

extern const struct kb_command kb_cmd_agents;
extern const struct kb_command kb_cmd_answer;
extern const struct kb_command kb_cmd_attach;
extern const struct kb_command kb_cmd_audit_export;
extern const struct kb_command kb_cmd_audit_import;
extern const struct kb_command kb_cmd_audit_prune;
extern const struct kb_command kb_cmd_audit_query;
extern const struct kb_command kb_cmd_audit_report;
extern const struct kb_command kb_cmd_audit_sessions;
extern const struct kb_command kb_cmd_audit_stats;
extern const struct kb_command kb_cmd_audit_timeline;
extern const struct kb_command kb_cmd_audit_tree;
extern const struct kb_command kb_cmd_audit_verify;
extern const struct kb_command kb_cmd_complete;
extern const struct kb_command kb_cmd_completion;
extern const struct kb_command kb_cmd_config_show;
extern const struct kb_command kb_cmd_doctor;
extern const struct kb_command kb_cmd_exec;
extern const struct kb_command kb_cmd_help;
extern const struct kb_command kb_cmd_logs;
extern const struct kb_command kb_cmd_policy_check;
extern const struct kb_command kb_cmd_policy_compile;
extern const struct kb_command kb_cmd_policy_diff;
extern const struct kb_command kb_cmd_policy_explain;
extern const struct kb_command kb_cmd_policy_groups;
extern const struct kb_command kb_cmd_policy_learn;
extern const struct kb_command kb_cmd_policy_list;
extern const struct kb_command kb_cmd_policy_replay;
extern const struct kb_command kb_cmd_policy_show;
extern const struct kb_command kb_cmd_policy_test;
extern const struct kb_command kb_cmd_ps;
extern const struct kb_command kb_cmd_publish;
extern const struct kb_command kb_cmd_run;
extern const struct kb_command kb_cmd_status;
extern const struct kb_command kb_cmd_stop;
extern const struct kb_command kb_cmd_version;
extern const struct kb_command kb_cmd_vm_base;
extern const struct kb_command kb_cmd_vm_bridge;
extern const struct kb_command kb_cmd_vm_console;
extern const struct kb_command kb_cmd_vm_delete;
extern const struct kb_command kb_cmd_vm_fork;
extern const struct kb_command kb_cmd_vm_forward;
extern const struct kb_command kb_cmd_vm_isolate;
extern const struct kb_command kb_cmd_vm_list;
extern const struct kb_command kb_cmd_vm_resume;
extern const struct kb_command kb_cmd_vm_add;
extern const struct kb_command kb_cmd_vm_ssh;
extern const struct kb_command kb_cmd_vm_ssh_config;
extern const struct kb_command kb_cmd_vm_start;
extern const struct kb_command kb_cmd_vm_status;
extern const struct kb_command kb_cmd_vm_stop;
extern const struct kb_command kb_cmd_vm_suspend;
