/* Programs that are hard to record, one by name: ./storm WHAT COUNT. Says on stdout how long it took, when
 * it ended, and its CPU time with that of its children (ns). */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long cpu(int who)
{
	struct rusage used;

	getrusage(who, &used);
	return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000LL +
	       (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000LL;
}

static char *map(long pages, int prot)
{
	char *p = mmap(NULL, pages * 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

/* COUNT page faults, in mappings of 256 MiB. */
static void faults(long count)
{
	for (long left = count, n; left > 0; left -= n) {
		char *p;

		n = left < 65536 ? left : 65536;
		p = map(n, PROT_READ | PROT_WRITE);
		madvise(p, n * 4096, MADV_NOHUGEPAGE);
		for (long i = 0; i < n; i++)
			p[i * 4096] = 1;
		munmap(p, n * 4096);
	}
}

/* COUNT children, one after the other, by vfork or fork; they exec a program of their own or end at once. */
static void children(long count, int copy, char *program)
{
	for (long i = 0; i < count; i++) {
		pid_t child = copy ? fork() : vfork();

		if (child == 0) {
			if (program)
				execl(program, program, "none", "0", (char *)NULL);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
}

/* COUNT VMAs: every other page of a reservation is made writable; then each is touched three times, in a mixed order. */
static void mappings(long count)
{
	char *p = map(2 * count + 1, PROT_NONE);

	for (long i = 0; i < count / 2; i++)
		if (mprotect(p + i * 8192, 4096, PROT_READ | PROT_WRITE)) {
			perror("mprotect");
			exit(1);
		}
	for (long round = 0; round < 3; round++) {
		for (long i = 0; i < count / 2; i++)
			p[i * 7919 % (count / 2) * 8192] = round;
		madvise(p, 8192 * 64, MADV_DONTNEED);
	}
}

static pthread_barrier_t all;

static void *thread(void *unused)
{
	char *own = malloc(20000);

	memset(own, 1, 20000);
	pthread_barrier_wait(&all);
	for (int i = 0; i < 3; i++) {
		char *p = map(16, PROT_READ | PROT_WRITE);

		memset(p, 1, 20000);
		munmap(p, 65536);
	}
	free(own);
	return unused;
}

/* COUNT threads that live at once. */
static void threads(long count)
{
	pthread_t *made = malloc(count * sizeof *made);
	pthread_attr_t small;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	pthread_barrier_init(&all, NULL, count);
	for (long i = 0; i < count; i++)
		if (pthread_create(made + i, &small, thread, NULL)) {
			perror("pthread_create");
			exit(1);
		}
	for (long i = 0; i < count; i++)
		pthread_join(made[i], NULL);
}

int main(int argc, char **argv)
{
	long count = argc > 2 ? atol(argv[2]) : 0;
	long long begin = now();

	if (argc > 1 && !strcmp(argv[1], "faults"))
		faults(count);
	else if (argc > 1 && !strcmp(argv[1], "vfork"))
		children(count, 0, NULL);
	else if (argc > 1 && !strcmp(argv[1], "fork"))
		children(count, 1, NULL);
	else if (argc > 1 && !strcmp(argv[1], "exec"))
		children(count, 0, "/proc/self/exe");
	else if (argc > 1 && !strcmp(argv[1], "mappings"))
		mappings(count);
	else if (argc > 1 && !strcmp(argv[1], "threads"))
		threads(count);
	else
		return 0;
	printf("%lld %lld %lld\n", now() - begin, now(), cpu(RUSAGE_SELF) + cpu(RUSAGE_CHILDREN));
	return 0;
}
