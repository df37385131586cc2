#include "role_io.h"

#include <stdlib.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/util.h"

int kb_role_receive(int fd, uint8_t **ret, size_t *ret_len, int *ret_fd, struct kb_err *err)
{
	uint8_t header[KB_FRAME_HEADER];
	struct kb_frame frame;
	KB_CLOSE int passed = -1;
	uint8_t *data;
	ssize_t n = kb_fd_recv(fd, header, sizeof(header), &passed, 1, err);
	int r = n < 0 ? (int)n : 0;

	if (n == 0)
		return kb_err_set(err, KB_ERR_CLOSED, "the other side is gone");
	if (r == 0 && (size_t)n < sizeof(header))
		r = kb_fd_read_exact(fd, header + n, sizeof(header) - (size_t)n, err);
	if (r == 0)
		r = kb_frame_decode(header, sizeof(header), &frame, err);
	if (r < 0)
		return r;
	data = malloc(frame.length + 1);
	if (!data)
		return kb_err_nomem(err);
	r = kb_fd_read_exact(fd, data, frame.length, err);
	if (r < 0) {
		free(data);
		return r;
	}
	*ret = data;
	*ret_len = frame.length;
	*ret_fd = kb_steal_fd(&passed);
	return 0;
}

int kb_role_send(int fd, const ProtobufCMessage *msg, struct kb_err *err)
{
	struct kb_frame frame = {
		.kind = KB_FRAME_MSG, .length = (uint32_t)protobuf_c_message_get_packed_size(msg)};
	KB_FREE uint8_t *bytes = malloc(KB_FRAME_HEADER + frame.length);

	if (!bytes)
		return kb_err_nomem(err);
	kb_frame_encode(&frame, bytes);
	protobuf_c_message_pack(msg, bytes + KB_FRAME_HEADER);
	return kb_fd_write_all(fd, bytes, KB_FRAME_HEADER + frame.length, err);
}
