/* Replays a corpus through a libFuzzer target as an ordinary test: REPLAY CORPUS-DIR [VARIANTS].
 *
 * Each file of the directory is one input. Besides the file itself, every target gets cheap
 * variants of it: all of its short prefixes, and VARIANTS copies with a few bytes changed. They are
 * drawn from a fixed seed, so a failure repeats. Inputs lie in a heap block of exactly their size:
 * with AddressSanitizer a read past the end is an error.
 *
 * A crash or an input that runs longer than INPUT_SECONDS names the file and the variant. An empty
 * corpus fails: a target that replays nothing shows nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef INPUT_SECONDS
#define INPUT_SECONDS 20
#endif
#define INPUT_MAX	 (8u << 20)
#define PREFIX_MAX	 256 /* prefixes of the first so many bytes */
#define VARIANTS_DEFAULT 64
#define CHANGES_MAX	 4 /* bytes changed in a variant */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* A target may define this; libFuzzer calls it too. */
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

/* What runs now, for the crash report. */
static char current[512] = "(start)";
static size_t runs;

static void say(const char *text)
{
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		_exit(1);
}

static void name_input(void)
{
	say("replay: died on ");
	say(current);
	say("\n");
}

static void on_signal(int signo)
{
	if (signo == SIGALRM)
		say("replay: took too long\n");
	name_input();
	signal(signo, SIG_DFL);
	raise(signo);
}

static void catch_death(void)
{
	static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};

	signal(SIGALRM, on_signal);
	if (__sanitizer_set_death_callback) {
		__sanitizer_set_death_callback(name_input);
		return;
	}
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], on_signal);
}

static void run(const char *name, const char *what, size_t number, const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy) {
		perror("replay");
		exit(1);
	}
	if (len)
		memcpy(copy, data, len);
	snprintf(current, sizeof(current), "%s (%s %zu)", name, what, number);
	alarm(INPUT_SECONDS);
	LLVMFuzzerTestOneInput(copy, len);
	alarm(0);
	free(copy);
	runs++;
}

/* xorshift64: all that is asked of it is to be the same everywhere. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void run_variants(const char *name, uint8_t *data, size_t len, size_t variants)
{
	uint64_t state = 0x9e3779b97f4a7c15u ^ len;
	size_t at[CHANGES_MAX], changes;
	uint8_t old[CHANGES_MAX];

	for (size_t n = 0; n < len && n < PREFIX_MAX; n++)
		run(name, "prefix", n, data, n);
	for (size_t n = 0; n < variants && len > 0; n++) {
		changes = 1 + next_random(&state) % CHANGES_MAX;
		for (size_t i = 0; i < changes; i++) {
			at[i] = next_random(&state) % len;
			old[i] = data[at[i]];
			data[at[i]] = (uint8_t)next_random(&state);
		}
		run(name, "variant", n, data, len);
		for (size_t i = changes; i-- > 0;)
			data[at[i]] = old[i];
	}
}

static int replay_file(const char *dir, const char *name, size_t variants)
{
	char path[4096];
	struct stat st;
	uint8_t *data;
	FILE *f;
	size_t len;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	f = fopen(path, "rb");
	data = malloc(INPUT_MAX);
	if (!f || !data) {
		perror(path);
		exit(1);
	}
	len = fread(data, 1, INPUT_MAX, f);
	fclose(f);
	run(name, "as it is", 0, data, len);
	run_variants(name, data, len, variants);
	free(data);
	return 1;
}

int main(int argc, char **argv)
{
	size_t files = 0, variants = VARIANTS_DEFAULT;
	struct dirent **entries;
	int n;

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: %s CORPUS-DIR [VARIANTS]\n", argv[0]);
		return 2;
	}
	if (argc == 3)
		variants = strtoul(argv[2], NULL, 10);
	n = scandir(argv[1], &entries, NULL, alphasort);
	if (n < 0) {
		fprintf(stderr, "replay: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	catch_death();
	for (int i = 0; i < n; i++) {
		files += (size_t)replay_file(argv[1], entries[i]->d_name, variants);
		free(entries[i]);
	}
	free(entries);
	if (files == 0) {
		fprintf(stderr, "replay: %s holds no input\n", argv[1]);
		return 1;
	}
	printf("replayed %zu inputs, %zu runs\n", files, runs);
	return 0;
}
