/* A virtio serial port of the (Linux) machine we run in. */
#pragma once

#include <stdbool.h>

/* Opened by the name its device has in QEMU; -1 while there is none (or somebody has it). */
int kb_vport_open(const char *name, int flags); /* of open(2), besides O_RDWR and O_CLOEXEC */
/* Is the host's end open? While it is not, reads return 0 at once. */
bool kb_vport_is_connected(int fd);
