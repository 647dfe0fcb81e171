/*
 * A multi-threaded allocator stress: THREADS threads allocate, touch and free blocks of mixed sizes with malloc, and
 * map, protect, move and unmap regions of their own. Many mapping operations, few VMAs that live long: the load that
 * makes an address space's write side busy while other threads fault.
 *
 * Usage: mt_alloc [threads] [rounds] [seed]. Deterministic per thread; the interleaving is the kernel's.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOTS = 32, PAGE = 4096 };

static int rounds = 400;
static uint64_t seed = 1;

static uint64_t next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

static void touch(char *p, size_t len, uint64_t *rng)
{
	for (size_t i = 0; i < 4; i++)
		p[next(rng) % len] = 1;
}

/* The first page of a region may be read-only: touch behind it. */
static void touch_map(char *p, size_t len, uint64_t *rng)
{
	if (len > PAGE)
		touch(p + PAGE, len - PAGE, rng);
	else
		touch(p, len, rng);
}

static void *worker(void *arg)
{
	uint64_t rng = seed * 0x9e3779b97f4a7c15ull + (uintptr_t)arg + 1;
	char *block[SLOTS] = { 0 }, *map[SLOTS] = { 0 };
	size_t len[SLOTS] = { 0 };

	for (int i = 0; i < rounds; i++) {
		int s = next(&rng) % SLOTS;
		size_t size = (size_t)16 << (next(&rng) % 15);

		free(block[s]);
		block[s] = malloc(size);
		if (block[s])
			touch(block[s], size, &rng);

		s = next(&rng) % SLOTS;
		if (map[s]) {
			if (next(&rng) % 4 == 0) {
				size_t more = len[s] + 4 * PAGE;
				char *moved = mremap(map[s], len[s], more, MREMAP_MAYMOVE);

				if (moved != MAP_FAILED) {
					map[s] = moved;
					len[s] = more;
					touch_map(map[s], len[s], &rng);
				}
				continue;
			}
			munmap(map[s], len[s]);
			map[s] = NULL;
			continue;
		}
		len[s] = PAGE * (1 + next(&rng) % 16);
		map[s] = mmap(NULL, len[s], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (map[s] == MAP_FAILED) {
			map[s] = NULL;
			continue;
		}
		touch_map(map[s], len[s], &rng);
		if (len[s] > PAGE && next(&rng) % 3 == 0)
			mprotect(map[s], PAGE, PROT_READ);
		if (next(&rng) % 8 == 0)
			madvise(map[s], len[s], MADV_DONTNEED);
	}
	for (int s = 0; s < SLOTS; s++) {
		free(block[s]);
		if (map[s])
			munmap(map[s], len[s]);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 4;
	pthread_t id[64];

	if (argc > 2)
		rounds = atoi(argv[2]);
	if (argc > 3)
		seed = strtoull(argv[3], NULL, 0);
	if (threads < 1 || threads > 64 || rounds < 1) {
		fprintf(stderr, "usage: mt_alloc [threads 1..64] [rounds] [seed]\n");
		return 2;
	}
	for (int i = 0; i < threads; i++)
		if (pthread_create(&id[i], NULL, worker, (void *)(uintptr_t)i))
			return 1;
	for (int i = 0; i < threads; i++)
		pthread_join(id[i], NULL);
	return 0;
}
