/* The same atomics as vma_hold and vma_release of the plugins, on the same records: see hold_pair.py. */
#include <stdint.h>

enum { SIZE = 192 };
const int64_t layout[3] = { SIZE, 128, 136 }; /* size, cache_access, cache_wait */

static int64_t *word(int64_t base, int64_t vma, int64_t offset)
{
	return (int64_t *)(base + vma * SIZE + offset);
}

/* pmdcache_rcu: one atomic add each way. */
void pair_rcu(int64_t base, int64_t vma, int64_t turns)
{
	for (int64_t i = 0; i < turns; i++) {
		__atomic_fetch_add(word(base, vma, 128), 1, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(word(base, vma, 128), -1, __ATOMIC_SEQ_CST);
	}
}

/* pmdcache, RFC 3/4: the last holder looks for a waiter and wakes it. */
void pair_rfc(int64_t base, int64_t vma, int64_t turns)
{
	for (int64_t i = 0; i < turns; i++) {
		__atomic_fetch_add(word(base, vma, 128), 1, __ATOMIC_SEQ_CST);
		if (__atomic_fetch_add(word(base, vma, 128), -1, __ATOMIC_SEQ_CST) == 1 && *word(base, vma, 136) != 0)
			*word(base, vma, 136) = 0;
	}
}
