/*
 * Lookups in the maple tree of a kernel source tree's lib/maple_tree.c, for linux_maple.py:
 * gcc -O2 -include shim.h, so that the kernel's text is compiled as it is. Entries are numbers of VMAs, shifted.
 */
#include "lib/maple_tree.c"

SHIM_STATE;

struct event {
	int64_t addr, len, offset, new_len, ret;
	int32_t kind, task, mm, prot, flags, file;
};

#define SHIFT 3

struct maple_tree *new_tree(void)
{
	struct maple_tree *mt = calloc(1, sizeof(*mt));

	maple_tree_init();
	mt_init_flags(mt, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_LOCK_EXTERN);
	return mt;
}

int store(struct maple_tree *mt, unsigned long first, unsigned long last, unsigned long vma)
{
	MA_STATE(mas, mt, first, last);
	int error;

	SHIM_ENTRY();
	error = mas_store_gfp(&mas, (void *)(vma << SHIFT), GFP_KERNEL);
	shim_grace_period();
	return error;
}

/* find_vma: the VMA at or above the address. */
static inline int64_t find(struct maple_tree *mt, unsigned long addr)
{
	return (int64_t)mt_find(mt, &addr, ULONG_MAX) >> SHIFT;
}

/* lock_vma_under_rcu: the VMA at the address, 0 in a hole. */
static inline int64_t walk(struct maple_tree *mt, unsigned long addr)
{
	MA_STATE(mas, mt, addr, addr);

	return (int64_t)mas_walk(&mas) >> SHIFT;
}

#define LOOKUP(name)                                                                                             \
	int64_t sum_##name(struct maple_tree *mt, const struct event *events, int64_t first, int64_t last)       \
	{                                                                                                        \
		int64_t total = 0;                                                                               \
                                                                                                                 \
		for (int64_t i = first; i < last; i++)                                                           \
			total += name(mt, events[i].addr);                                                       \
		return total;                                                                                    \
	}                                                                                                        \
	void each_##name(struct maple_tree *mt, const struct event *events, int64_t first, int64_t last,         \
			 int64_t *to)                                                                            \
	{                                                                                                        \
		for (int64_t i = first; i < last; i++)                                                           \
			to[i - first] = name(mt, events[i].addr);                                                \
	}

LOOKUP(find)
LOOKUP(walk)
