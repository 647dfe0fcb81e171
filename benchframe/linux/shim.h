/* SPDX-License-Identifier: MIT
 *
 * What lib/maple_tree.c, lib/rbtree.c and mm/vma.c ask of the kernel around them, in user space: one thread, memory
 * that never runs out, and an RCU grace period whenever a call has returned. Included before everything else but
 * benchframe.h; the headers that those files name are empty, but for the ones of their own (tree.py).
 *
 * In a strategy (behind benchframe.h) nodes are the model's records: its driver defines shim_alloc and shim_free.
 */
#ifndef BENCHFRAME_SHIM_H
#define BENCHFRAME_SHIM_H
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define CONFIG_64BIT 1
#define CONFIG_MMU 1
#define CONFIG_SMP 1
#define BITS_PER_LONG 64
#ifndef PAGE_SHIFT
#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned int gfp_t;
typedef struct { int counter; } atomic_t;

/* ---- the language --------------------------------------------------------------------------------------------- */
#define __rcu
#define __init
#define __user
#define __must_check
#define __private
#define __acquires(x)
#define __releases(x)
#define __must_hold(x)
#define __read_mostly
#undef __always_inline
#define __always_inline inline __attribute__((__always_inline__))
#define noinline __attribute__((__noinline__))
#define noinline_for_kasan noinline
#define __maybe_unused __attribute__((__unused__))
#define __packed __attribute__((__packed__))
#define __aligned(x) __attribute__((__aligned__(x)))
#define fallthrough __attribute__((__fallthrough__))
#define EXPORT_SYMBOL(x)
#define EXPORT_SYMBOL_GPL(x)
#ifndef BENCHFRAME_H /* which has them */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
#define smp_mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define smp_store_release(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define smp_load_acquire(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#endif
#define ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define min(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a < _b ? _a : _b; })
#define max(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a > _b ? _a : _b; })
#define min_t(type, a, b) min((type)(a), (type)(b))
#define max_t(type, a, b) max((type)(a), (type)(b))
#define IS_ENABLED(x) 0
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define PAGE_ALIGN(a) (((a) + PAGE_SIZE - 1) & PAGE_MASK)
#define smp_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define smp_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)
#define barrier() __asm__ volatile("" ::: "memory")

/* A kernel that finds itself broken leaves the call: what Python called returns -EFAULT (SHIM_ENTRY). A strategy's
 * process ends. */
extern jmp_buf shim_entry;
extern int shim_line;
#define SHIM_STATE jmp_buf shim_entry; int shim_line; struct rcu_head *shim_waiting
#define SHIM_ENTRY() do { if (setjmp(shim_entry)) return -EFAULT; } while (0)
#ifdef BENCHFRAME_H
#define BUG() (dprintf(2, "%s:%d: BUG or WARN in %s\n", __FILE__, __LINE__, __func__), abort())
#else
#define BUG() (shim_line = __LINE__, longjmp(shim_entry, 1))
#endif
#define BUG_ON(c) ((c) ? BUG() : (void)0)
#define WARN(c, ...) ({ int _c = !!(c); BUG_ON(_c); _c; })
#define WARN_ON(c) WARN(c)
#define WARN_ON_ONCE(c) WARN(c)
#define printk(...) ((void)0)
#define pr_err printk
#define pr_warn printk
#define pr_info printk
#define pr_cont printk
#define KERN_ERR

/* ---- error pointers -------------------------------------------------------------------------------------------- */
#define MAX_ERRNO 4095
#define IS_ERR_VALUE(x) ((unsigned long)(void *)(x) >= (unsigned long)-MAX_ERRNO)
static inline void *ERR_PTR(long error) { return (void *)error; }
static inline long PTR_ERR(const void *p) { return (long)p; }
static inline bool IS_ERR(const void *p) { return IS_ERR_VALUE(p); }
static inline bool IS_ERR_OR_NULL(const void *p) { return !p || IS_ERR(p); }

/* ---- lists and atomics, for mm/vma.c ------------------------------------------------------------------------------ */
struct list_head { struct list_head *next, *prev; };
struct hlist_node { struct hlist_node *next, **pprev; };
struct hlist_head { struct hlist_node *first; };
#define atomic_inc(a) ((a)->counter++)
#define atomic_dec(a) ((a)->counter--)
#define atomic_read(a) ((a)->counter)
#define __test_and_set_bit(n, a) ({ bool _was = *(a) >> (n) & 1; *(a) |= 1UL << (n); _was; })
#define __test_and_clear_bit(n, a) ({ bool _was = *(a) >> (n) & 1; *(a) &= ~(1UL << (n)); _was; })
#define test_bit(n, a) (*(a) >> (n) & 1)
#define data_race(x) (x)
struct rw_semaphore { int unused; };
#define init_rwsem(s) ((void)(s))
#define down_write(s) ((void)(s))
#define up_write(s) ((void)(s))

/* ---- locks: nobody else runs ------------------------------------------------------------------------------------ */
typedef struct { int unused; } spinlock_t;
#define spin_lock_init(l) ((void)(l))
#define spin_lock(l) ((void)(l))
#define spin_unlock(l) ((void)(l))
#define spin_lock_nested(l, n) ((void)(l))
#define spin_lock_irqsave(l, f) ((void)(l), (void)(f))
#define spin_unlock_irqrestore(l, f) ((void)(l), (void)(f))
#define lockdep_is_held(l) 1
#define lock_is_held(l) 1
#define lockdep_assert_held(l) ((void)(l))
#define __SPIN_LOCK_UNLOCKED(x) { 0 }

/* ---- RCU: what is freed waits until the caller has returned -------------------------------------------------------- */
struct rcu_head { struct rcu_head *next; void (*func)(struct rcu_head *); };
#define callback_head rcu_head
extern struct rcu_head *shim_waiting;
static inline void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *))
{
	head->func = func;
	head->next = shim_waiting;
	shim_waiting = head;
}
static inline void shim_grace_period(void)
{
	struct rcu_head *head = shim_waiting, *next;

	shim_waiting = NULL;
	for (; head; head = next) {
		next = head->next;
		head->func(head);
	}
}
#define rcu_read_lock() barrier()
#define rcu_read_unlock() barrier()
#define rcu_dereference(p) READ_ONCE(p)
#define rcu_dereference_check(p, c) READ_ONCE(p)
#define rcu_dereference_protected(p, c) (p)
#define rcu_dereference_raw(p) READ_ONCE(p)
#define rcu_assign_pointer(p, v) __atomic_store_n(&(p), (v), __ATOMIC_RELEASE)
#define RCU_INIT_POINTER(p, v) ((p) = (v))

/* ---- memory ----------------------------------------------------------------------------------------------------- */
#define GFP_KERNEL 0x400U
#define GFP_NOWAIT 0U
#define __GFP_NOWARN 0U
#define __GFP_NOFAIL 0U
#define __GFP_ZERO 0x100U
#define SLAB_PANIC 0
#define gfpflags_allow_blocking(f) (!!((f) & 0x400U))
struct kmem_cache { size_t size; };
struct kmem_cache_args { unsigned int align, sheaf_capacity; };
#define kmem_cache_create(name, size, ...) shim_cache(size) /* whose other arguments have changed */
static inline struct kmem_cache *shim_cache(size_t size)
{
	struct kmem_cache *cache = calloc(1, sizeof(*cache));

	cache->size = size;
	return cache;
}
#ifdef BENCHFRAME_H
static void *shim_alloc(void);
static void shim_free(void *p);
static inline void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp)
{
	void *p = shim_alloc();

	return p && gfp & __GFP_ZERO ? memset(p, 0, cache->size) : p;
}
#else
static inline void shim_free(void *p) { free(p); }
static inline void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp)
{
	void *p = aligned_alloc(256, (cache->size + 255) & ~255UL); /* maple nodes keep their type in the low byte */

	if (!p)
		abort();
	return memset(p, 0, cache->size);
}
#endif
static inline void kmem_cache_free(struct kmem_cache *cache, void *p) { shim_free(p); }
static inline void kmem_cache_free_bulk(struct kmem_cache *cache, size_t n, void **p)
{
	for (size_t i = 0; i < n; i++)
		shim_free(p[i]);
}
static inline int kmem_cache_alloc_bulk(struct kmem_cache *cache, gfp_t gfp, size_t n, void **p)
{
	for (size_t i = 0; i < n; i++)
		if (!(p[i] = kmem_cache_alloc(cache, gfp))) {
			kmem_cache_free_bulk(cache, i, p);
			return 0;
		}
	return n;
}
/* Prefilled sheaves, 6.18 on: objects that a caller has in hand. */
struct slab_sheaf { unsigned int size; void *objects[]; };
static inline int kmem_cache_refill_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf **sheaf, unsigned int size)
{
	struct slab_sheaf *grown = realloc(*sheaf, sizeof(*grown) + size * sizeof(void *));

	if (!*sheaf)
		grown->size = 0;
	*sheaf = grown;
	if (grown->size >= size)
		return 0;
	if (!kmem_cache_alloc_bulk(cache, gfp, size - grown->size, grown->objects + grown->size))
		return -ENOMEM;
	grown->size = size;
	return 0;
}
static inline void kmem_cache_return_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf *sheaf)
{
	kmem_cache_free_bulk(cache, sheaf->size, sheaf->objects);
	free(sheaf);
}
static inline struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *cache, gfp_t gfp, unsigned int size)
{
	struct slab_sheaf *sheaf = NULL;

	if (!kmem_cache_refill_sheaf(cache, gfp, &sheaf, size))
		return sheaf;
	kmem_cache_return_sheaf(cache, gfp, sheaf);
	return NULL;
}
#define kmem_cache_sheaf_size(sheaf) ((sheaf)->size)
static inline void *kmem_cache_alloc_from_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf *sheaf)
{
	void *p = sheaf->size ? sheaf->objects[--sheaf->size] : NULL;

	return p && gfp & __GFP_ZERO ? memset(p, 0, cache->size) : p;
}
/* Of a maple node, which is aligned to its size. */
static inline void shim_free_node(struct rcu_head *head) { shim_free((void *)((uintptr_t)head & ~255UL)); }
#define kfree_rcu(p, head) call_rcu(&(p)->head, shim_free_node)
static inline void *kmalloc(size_t n, gfp_t gfp) { return malloc(n); }
static inline void *kzalloc(size_t n, gfp_t gfp) { return calloc(1, n); }
static inline void kfree(void *p) /* of kmem_cache_alloc's objects, too */
{
	if (p)
		shim_free(p);
}

/* ---- the entries that include/linux/xarray.h defines ------------------------------------------------------------- */
#define XA_ZERO_ENTRY xa_mk_internal(257)
static inline void *xa_mk_internal(unsigned long v) { return (void *)(v << 2 | 2); }
static inline unsigned long xa_to_internal(const void *entry) { return (unsigned long)entry >> 2; }
static inline bool xa_is_internal(const void *entry) { return ((unsigned long)entry & 3) == 2; }
static inline bool xa_is_node(const void *entry) { return xa_is_internal(entry) && (unsigned long)entry > 4096; }
static inline bool xa_is_err(const void *entry)
{
	return xa_is_internal(entry) && (unsigned long)entry >= (unsigned long)xa_mk_internal(-MAX_ERRNO);
}
static inline int xa_err(void *entry) { return xa_is_err(entry) ? (long)entry >> 2 : 0; }
static inline bool xa_is_value(const void *entry) { return (unsigned long)entry & 1; }
static inline unsigned long xa_to_value(const void *entry) { return (unsigned long)entry >> 1; }
static inline void *xa_mk_value(unsigned long v) { return (void *)(v << 1 | 1); }
static inline bool xa_is_zero(const void *entry) { return entry == XA_ZERO_ENTRY; }
static inline bool xa_is_advanced(const void *entry) { return xa_is_internal(entry) && entry <= XA_ZERO_ENTRY; }

#define trace_ma_op(...) do { } while (0)
#define trace_ma_read(...) do { } while (0)
#define trace_ma_write(...) do { } while (0)
#endif
