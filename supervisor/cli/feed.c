#include "feed.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/util.h"

static void read_on(struct kb_feed *feed)
{
	uint8_t data[KB_FEED_CHUNK];
	size_t room = KB_MIN(feed->ops->room(feed->arg), sizeof(data));
	ssize_t n;

	if (feed->ended)
		return;
	if (room == 0) {
		(void)kb_source_set_events(feed->source, 0, NULL);
		return;
	}
	n = read(feed->fd, data, room);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		int errnum = n < 0 ? errno : 0;

		kb_feed_stop(feed);
		feed->ops->end(errnum, feed->arg);
		return;
	}
	feed->ops->data(data, (size_t)n, feed->arg);
	if (!feed->watched && !feed->ended)
		(void)kb_source_arm(feed->kick, 0, NULL);
}

static void on_readable(int fd, unsigned events, void *arg)
{
	read_on(arg);
}

static void on_kick(void *arg)
{
	read_on(arg);
}

/* Files, /dev/null and their like cannot be watched (epoll_ctl(2): EPERM); reading them never
 * waits.
 */
static bool can_be_watched(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || isatty(fd));
}

int kb_feed_init(struct kb_feed *feed, struct kb_loop *loop, int fd, const struct kb_feed_ops *ops,
	void *arg, struct kb_err *err)
{
	int r;

	*feed = (struct kb_feed){.fd = fd, .watched = can_be_watched(fd), .ops = ops, .arg = arg};
	r = kb_loop_timer(loop, on_kick, feed, &feed->kick, err);
	if (r == 0)
		r = kb_loop_io(loop, fd, 0, on_readable, feed, &feed->source, err);
	return r;
}

void kb_feed_finish(struct kb_feed *feed)
{
	kb_source_destroy(feed->source);
	kb_source_destroy(feed->kick);
	*feed = (struct kb_feed){.fd = -1, .ended = true};
}

void kb_feed_more(struct kb_feed *feed)
{
	if (feed->ended)
		return;
	if (feed->watched)
		(void)kb_source_set_events(feed->source, KB_IO_READ, NULL);
	else
		(void)kb_source_arm(feed->kick, 0, NULL);
}

void kb_feed_stop(struct kb_feed *feed)
{
	feed->ended = true;
	(void)kb_source_set_events(feed->source, 0, NULL);
	kb_source_disarm(feed->kick);
}
