/* What is different where the processor is emulated. */
#pragma once

#include <stdbool.h>

/* Is it QEMU's emulator (TCG), and are there several processors? Then code of the kernel must not
 * be changed while it runs, as attaching a program to it does: a processor may go on with the old
 * code for good, and the machine hangs. Seen with QEMU 7.2 and Linux 6.1 in the static call of
 * syscall_trace_enter(); with KVM, or with one processor, nothing of it. */
bool kb_emulator_hangs(void);
