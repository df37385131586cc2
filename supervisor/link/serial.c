/* The transport of machines of ours: a virtio serial port, which QEMU has as a unix socket here. It
 * needs no network in the machine. The address is the machine's name. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "reach.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"

#define GREETING_MS 90000 /* a machine may still be booting */

static int dial(void *arg, int *ret_fd, struct kb_err *err)
{
	struct kb_reach *reach = arg;
	const char *name = reach->link->options->address;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	KB_CLOSE int fd = -1;
	int r = kb_reach_check(reach, err);

	if (r == 0)
		r = kb_vm_guest_path(reach->vm, name, addr.sun_path, err);
	if (r < 0)
		return r;
	fd = kb_os_socket(AF_UNIX, SOCK_STREAM, 0, true);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return kb_err_sys(err, errno, "the port of machine %s cannot be reached", name);
	*ret_fd = kb_steal_fd(&fd);
	return 0;
}

static int serial_open(struct kb_link *link, int *ret_fd, struct kb_err *err)
{
	struct kb_reach *reach = calloc(1, sizeof(*reach));

	if (!reach)
		return kb_err_nomem(err);
	link->transport_state = reach;
	return kb_reach_open(reach, link, dial, NULL, ret_fd, err);
}

static void serial_close(struct kb_link *link)
{
	struct kb_reach *reach = KB_STEAL(link->transport_state);

	if (reach)
		kb_reach_close(reach);
	free(reach);
}

const struct kb_transport kb_transport_serial = {
	.name = "serial", .greeting_ms = GREETING_MS, .open = serial_open, .close = serial_close};
