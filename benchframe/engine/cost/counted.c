/* SPDX-License-Identifier: MIT
 *
 * What the code of a C strategy calls when it is counted: gcc puts the calls in (-fsanitize=thread: one before each
 * access, -fsanitize-coverage=trace-pc: one in each block), nothing of the sanitizers' own libraries is linked. Each
 * access to a slab that counts, and each branch, leaves one record, as benchframe/engine/cost/records.py defines them;
 * LOAD, STORE, ATOMIC, BARRIER, BRANCH and SHIFT are defined there too.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define API __attribute__((visibility("default")))

/* A slab: its bytes, the counted address of the first, the bytes of a record, and which of them begin a field that the
 * kernel has too. */
struct region {
	uint64_t begin, end, place, size;
	const uint8_t *counted;
};

static const struct region *regions;
static int64_t nr_regions;
static int64_t *records, room, used;

/* The branches seen so far: the block that ends with one, its number, and the block that followed it first. */
#define SITES (1 << 16)
static struct site {
	uintptr_t block, first;
	int64_t number;
} sites[SITES];
static int64_t nr_sites, first_site;

/* The functions that have been entered and not left, by their frames, and the branch that each will decide next. */
#define DEPTH 256
static struct {
	uintptr_t frame, block;
} active[DEPTH];
static int depth;

API void counted_memory(const struct region *all, int64_t count, int64_t *to, int64_t size, int64_t site)
{
	regions = all;
	nr_regions = count;
	records = to;
	room = size;
	first_site = site;
}

/* A call begins: no records. */
API void counted_begin(void)
{
	used = 0;
	depth = 0;
}

/* How many records the call has left, those without room included; -1: more branches than the table holds. */
API int64_t counted_records(void) { return nr_sites < SITES / 2 ? used : -1; }

static void note(int64_t kind, int64_t low)
{
	if (used < room)
		records[used] = (kind << SHIFT) + low;
	used++;
}

static void touch(int64_t kind, const volatile void *p)
{
	uint64_t address = (uint64_t)p;

	for (int64_t i = 0; i < nr_regions; i++) {
		const struct region *r = &regions[i];

		if (address >= r->begin && address < r->end) {
			uint64_t offset = address - r->begin;

			if (r->counted[offset % r->size])
				note(kind, r->place + offset);
			return;
		}
	}
}

/* A copy, or a whole structure: one access for each word. */
static void touch_range(int64_t kind, const volatile void *p, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 8)
		touch(kind, (const volatile char *)p + at);
}

/* ---- branches ------------------------------------------------------------------------------------------------------ */
static void decided(uintptr_t block, uintptr_t next)
{
	uint64_t at = block * 0x9E3779B97F4A7C15ULL >> 48;

	while (sites[at].block != block) {
		if (!sites[at].block) {
			if (nr_sites >= SITES / 2)
				return;
			sites[at] = (struct site){ block, next, first_site + nr_sites++ };
			break;
		}
		at = (at + 1) % SITES;
	}
	note(BRANCH, 2 * sites[at].number + (sites[at].first != next));
}

/* A block begins in the function with this frame; `conditional` if it ends with a branch. Frames grow downwards, so the
 * lower ones have been left. */
static void entered(uintptr_t frame, uintptr_t block, bool conditional)
{
	while (depth && active[depth - 1].frame < frame)
		depth--;
	if (!depth || active[depth - 1].frame != frame) {
		if (depth == DEPTH)
			__builtin_trap();
		active[depth].block = 0;
		active[depth++].frame = frame;
	}
	if (active[depth - 1].block)
		decided(active[depth - 1].block, block);
	active[depth - 1].block = conditional ? block : 0;
}

#define FRAME ((uintptr_t)__builtin_frame_address(1))
#define BLOCK ((uintptr_t)__builtin_return_address(0))
void __sanitizer_cov_trace_pc(void) { entered(FRAME, BLOCK, false); }
void counted_branch(void) { entered(FRAME, BLOCK, true); }

/* ---- accesses ------------------------------------------------------------------------------------------------------ */
void __tsan_init(void) { }
void __tsan_func_entry(void *caller) { }
void __tsan_func_exit(void) { }
void __tsan_vptr_update(void **p, void *value) { }

#define PLAIN(n) \
	void __tsan_read##n(void *p) { touch_range(LOAD, p, n); } \
	void __tsan_write##n(void *p) { touch_range(STORE, p, n); } \
	void __tsan_unaligned_read##n(void *p) { touch_range(LOAD, p, n); } \
	void __tsan_unaligned_write##n(void *p) { touch_range(STORE, p, n); } \
	void __tsan_volatile_read##n(void *p) { touch_range(LOAD, p, n); } \
	void __tsan_volatile_write##n(void *p) { touch_range(STORE, p, n); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)
void __tsan_read_range(void *p, size_t bytes) { touch_range(LOAD, p, bytes); }
void __tsan_write_range(void *p, size_t bytes) { touch_range(STORE, p, bytes); }

void *counted_memcpy(void *to, const void *from, size_t bytes)
{
	touch_range(LOAD, from, bytes);
	touch_range(STORE, to, bytes);
	return memcpy(to, from, bytes);
}

void *counted_memmove(void *to, const void *from, size_t bytes)
{
	touch_range(LOAD, from, bytes);
	touch_range(STORE, to, bytes);
	return memmove(to, from, bytes);
}

void *counted_memset(void *to, int value, size_t bytes)
{
	touch_range(STORE, to, bytes);
	return memset(to, value, bytes);
}

/* As on x86, only a store that is also a full barrier is more than a store. */
#define CHANGE(bits, name) \
	uint##bits##_t __tsan_atomic##bits##_##name(volatile void *p, uint##bits##_t v, int order) \
	{ \
		touch(ATOMIC, p); \
		return __atomic_##name((volatile uint##bits##_t *)p, v, __ATOMIC_SEQ_CST); \
	}
#define EXCHANGE(bits, strength, weak) \
	int __tsan_atomic##bits##_compare_exchange_##strength(volatile void *p, void *old, uint##bits##_t v, int a, int b) \
	{ \
		touch(ATOMIC, p); \
		return __atomic_compare_exchange_n((volatile uint##bits##_t *)p, (uint##bits##_t *)old, v, weak, \
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	}
#define ATOMICS(bits) \
	uint##bits##_t __tsan_atomic##bits##_load(const volatile void *p, int order) \
	{ \
		touch(LOAD, p); \
		return __atomic_load_n((const volatile uint##bits##_t *)p, __ATOMIC_SEQ_CST); \
	} \
	void __tsan_atomic##bits##_store(volatile void *p, uint##bits##_t v, int order) \
	{ \
		touch(order == __ATOMIC_SEQ_CST ? ATOMIC : STORE, p); \
		__atomic_store_n((volatile uint##bits##_t *)p, v, __ATOMIC_SEQ_CST); \
	} \
	uint##bits##_t __tsan_atomic##bits##_exchange(volatile void *p, uint##bits##_t v, int order) \
	{ \
		touch(ATOMIC, p); \
		return __atomic_exchange_n((volatile uint##bits##_t *)p, v, __ATOMIC_SEQ_CST); \
	} \
	CHANGE(bits, fetch_add) \
	CHANGE(bits, fetch_sub) \
	CHANGE(bits, fetch_and) \
	CHANGE(bits, fetch_or) \
	CHANGE(bits, fetch_xor) \
	CHANGE(bits, fetch_nand) \
	EXCHANGE(bits, strong, false) \
	EXCHANGE(bits, weak, true) \
	uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(volatile void *p, uint##bits##_t old, uint##bits##_t v, \
								  int a, int b) \
	{ \
		__tsan_atomic##bits##_compare_exchange_strong(p, &old, v, a, b); \
		return old; \
	}
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

void __tsan_atomic_signal_fence(int order) { }
void __tsan_atomic_thread_fence(int order)
{
	if (order == __ATOMIC_SEQ_CST)
		note(BARRIER, 0);
}
