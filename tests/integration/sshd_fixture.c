#include "sshd_fixture.h"

#include <arpa/inet.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/spawn.h"
#include "tests/unit/kbtest.h"

#define SSHD	  "/usr/sbin/sshd"
#define TEST_USER "kbtest"
#define UP_MS	  60000
#define TRIES	  5

extern char **environ;

int sshd_run(const char *const *argv)
{
	struct kb_spawn spawn = {
		.path = argv[0], .argv = argv, .env = (const char *const *)environ};
	int status = -1;
	struct kb_err err;
	pid_t pid;

	if (kb_spawn(&spawn, &pid, &err) < 0)
		fail_msg("%s: %s", argv[0], err.msg);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool become_user(void)
{
	static const char *const make[] = {"/bin/sh", "-c",
		"flock /tmp/.kbsup-test-user.lock sh -c 'id " TEST_USER
		" >/dev/null 2>&1 || useradd --create-home --shell /bin/sh " TEST_USER "'",
		NULL};
	struct passwd *pw;

	sshd_run(make);
	pw = getpwnam(TEST_USER);
	if (!pw || initgroups(TEST_USER, pw->pw_gid) < 0 || setgid(pw->pw_gid) < 0 ||
		setuid(pw->pw_uid) < 0) {
		printf("the user %s cannot be made\n", TEST_USER);
		return false;
	}
	return true;
}

bool sshd_select(int argc, char **argv)
{
	bool user = argc > 1 && strcmp(argv[1], "user") == 0;

	if (access(SSHD, X_OK) < 0) {
		printf("no OpenSSH server here (package openssh-server)\n");
		return false;
	}
	if (!user && geteuid() != 0) {
		printf("not root\n");
		return false;
	}
	if (user && geteuid() == 0)
		return become_user();
	if (!user)
		mkdir("/run/sshd", 0755); /* where sshd of root wants to be confined */
	return true;
}

static char *read_line(const char *path)
{
	char line[1024];
	FILE *f = fopen(path, "re");

	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	fclose(f);
	line[strcspn(line, "\n")] = '\0';
	return strdup(line);
}

/* Makes dir/name and dir/name.pub; the file with the private key. */
static char *make_key(const struct sshd *s, const char *name)
{
	char *path = kb_asprintf("%s/%s", s->dir, name);
	const char *const argv[] = {
		"/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path, NULL};

	assert_int_equal(sshd_run(argv), 0);
	return path;
}

static char *public_of(const char *key)
{
	KB_FREE char *path = kb_asprintf("%s.pub", key);
	char *line = read_line(path);

	line[strcspn(line, " ") + 1 + strcspn(strchr(line, ' ') + 1, " ")] = '\0';
	return line;
}

static unsigned free_port(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	close(fd);
	return ntohs(sa.sin_port);
}

static bool answers(unsigned port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool good = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;

	close(fd);
	return good;
}

static void write_config(const struct sshd *s, const char *host_key)
{
	KB_FREE char *path = kb_asprintf("%s/sshd_config", s->dir);
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	/* Keys are agreed anew every few megabytes, so that transfers meet that. */
	fprintf(f,
		"ListenAddress 127.0.0.1\nPort %u\nHostKey %s\nAuthorizedKeysFile %s/key.pub\n"
		"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
		"KbdInteractiveAuthentication no\nPidFile none\nMaxStartups 100\n"
		"RekeyLimit 3M\nSubsystem sftp internal-sftp\n",
		s->port, host_key, s->dir);
	fclose(f);
}

/* Its port may be taken by somebody else meanwhile: then it ends, and another is tried. */
static bool try_start(struct sshd *s)
{
	KB_FREE char *config = kb_asprintf("%s/sshd_config", s->dir);
	KB_FREE char *log = kb_asprintf("%s/log", s->dir);
	const char *const argv[] = {SSHD, "-D", "-f", config, "-E", log, NULL};
	struct kb_spawn spawn = {.path = SSHD,
		.argv = argv,
		.env = (const char *const *)environ,
		.flags = KB_SPAWN_PDEATHSIG};
	struct kb_err err;
	int64_t end = kb_now_mono() + UP_MS * 1000000LL;

	assert_ok(kb_spawn(&spawn, &s->pid, &err));
	while (kb_now_mono() < end) {
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid)
			return false;
		if (answers(s->port))
			return true;
		usleep(20000);
	}
	fail_msg("sshd does not come up");
	return false;
}

void sshd_start(struct sshd *s)
{
	const char *base = getenv("TMPDIR");

	*s = (struct sshd){.dir = kb_asprintf("%s/kbssh.XXXXXX", base ? base : "/tmp")};
	assert_non_null(mkdtemp(s->dir));
	assert_int_equal(chmod(s->dir, 0755), 0);
	s->user = strdup(getpwuid(geteuid())->pw_name);
	KB_FREE char *host = make_key(s, "host");
	KB_FREE char *other = make_key(s, "other_host");
	s->key = make_key(s, "key");
	s->other_key = make_key(s, "other_key");
	s->host_key = public_of(host);
	s->other_host_key = public_of(other);
	for (int i = 0; i < TRIES; i++) {
		s->port = free_port();
		write_config(s, host);
		if (try_start(s))
			return;
	}
	fail_msg("sshd ends at once; see %s/log", s->dir);
}

void sshd_stop(struct sshd *s)
{
	struct kb_err err;

	if (s->pid > 0) {
		kill(s->pid, SIGTERM);
		waitpid(s->pid, NULL, 0);
	}
	assert_ok(kb_rmtree(s->dir, &err));
	free(s->dir);
	free(s->user);
	free(s->host_key);
	free(s->other_host_key);
	free(s->key);
	free(s->other_key);
}

void sshd_random(uint8_t *data, size_t len)
{
	uint64_t x = 0x9e3779b97f4a7c15ull;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		data[i] = (uint8_t)x;
	}
}

int sshd_listener(unsigned *port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	*port = ntohs(sa.sin_port);
	return fd;
}

pid_t sshd_echo(int fd)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	for (;;) {
		int sock = accept(fd, NULL, NULL);
		char data[8192];
		ssize_t n;

		while ((n = read(sock, data, sizeof(data))) > 0)
			if (write(sock, data, (size_t)n) != n)
				_exit(1);
		close(sock);
	}
}

int sshd_talk(unsigned port, size_t len)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	uint8_t *data = malloc(len), *back = malloc(len + 1);
	size_t have = 0;
	ssize_t n;
	pid_t writer;

	sshd_random(data, len);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return 1;
	writer = fork();
	if (writer == 0) {
		struct kb_err err;

		_exit(kb_fd_write_all(fd, data, len, &err) < 0 || shutdown(fd, SHUT_WR) < 0);
	}
	while (have <= len && (n = read(fd, back + have, len + 1 - have)) > 0)
		have += (size_t)n;
	return have != len || memcmp(data, back, len) != 0;
}
