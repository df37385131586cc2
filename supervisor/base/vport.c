#include "vport.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define PORTS_DIR "/sys/class/virtio-ports"

static bool has_name(const char *entry, const char *name)
{
	char path[300], text[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), PORTS_DIR "/%s/name", entry);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fgets(text, sizeof(text), file))
		text[strcspn(text, "\n")] = '\0';
	fclose(file);
	return strcmp(text, name) == 0;
}

/* Through sysfs, so that udev's links need not be there yet. */
int kb_vport_open(const char *name, int flags)
{
	DIR *dir = opendir(PORTS_DIR);
	struct dirent *entry;
	char path[300] = "";

	if (!dir)
		return -1;
	while (!*path && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && has_name(entry->d_name, name))
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
	closedir(dir);
	return *path ? open(path, O_RDWR | O_CLOEXEC | flags) : -1;
}

bool kb_vport_is_connected(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	return poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP);
}
