/*
 * The lookups of the indexes and of vmacache in C, over the records that the model made. Compiled by c_index.py:
 * gcc -O2 -fPIC -shared. Written as a kernel programmer would, not after the Python text; references are indices.
 */
#include <stddef.h>
#include <stdint.h>

struct vm_area_struct {
	int64_t vm_start, vm_end, vm_next, vm_prev;
	int64_t rb_parent_color, rb_right, rb_left, rb_subtree_gap;
	int64_t vm_mm, rest[15];
};

struct event {
	int64_t addr, len, offset, new_len, ret;
	int32_t kind, task, mm, prot, flags, file;
};

/* What c_index.py fills in: addresses of the model's arrays, and of the words of its mm and task. */
struct space {
	const struct vm_area_struct *vmas;
	const struct event *events;
	const int64_t *mm_rb, *mmap, *strategy0, *strategy2, *id;
	const int64_t *private0, *private1, *private3;
	int64_t *mm_seqnum, *task_mm, *task_seqnum, *slots;
};

typedef int64_t find(const struct space *s, int64_t addr);

static inline int64_t avl(const struct space *s, int64_t addr)
{
	int64_t node = *s->mm_rb, found = 0;

	while (node) {
		const struct vm_area_struct *v = &s->vmas[node];

		if (v->vm_end > addr) {
			found = node;
			if (v->vm_start <= addr)
				break;
			node = v->rb_left;
		} else {
			node = v->rb_right;
		}
	}
	return found;
}

struct entry {
	int64_t vma, vm_start;
};

static inline int64_t sorted_array(const struct space *s, int64_t addr)
{
	const int64_t *keys = s->private0 + *s->mm_rb;
	int64_t low = 0, n = *s->strategy0;

	for (int64_t count = n, half; count > 1; count -= half) {
		half = count / 2;
		low += keys[low + half - 1] <= addr ? half : 0;
	}
	low += n && keys[low] <= addr;
	if (low == n)
		return 0;
	return ((const struct entry *)s->private1)[*s->mm_rb + low].vma;
}

struct heap {
	int64_t vm_end, vma;
};

static inline int64_t eytzinger(const struct space *s, int64_t addr)
{
	const struct heap *heap = (const struct heap *)s->private3 + *s->mm_rb - 1;
	int64_t n = *s->strategy0, k = 1, found = 0;

	while (k <= n) {
		if (heap[k].vm_end <= addr) {
			k = 2 * k + 1;
		} else {
			found = k;
			k = 2 * k;
		}
	}
	return found ? heap[found].vma : 0;
}

static inline int rank(const int64_t *keys, int64_t addr)
{
	int n = 0;

	for (int i = 0; i < 16; i++)
		n += keys[i] <= addr;
	return n;
}

static inline int64_t btree(const struct space *s, int64_t addr)
{
	const int64_t *node = s->private0 + 40 * *s->mm_rb;
	int n;

	if (!*s->mm_rb)
		return 0;
	for (int64_t level = *s->strategy0; level > 0; level--) {
		n = rank(node + 8, addr);
		node = s->private0 + 40 * node[24 + (n ? n - 1 : 0)];
	}
	n = rank(node + 8, addr);
	if (!n)
		return *s->mmap;
	if (addr < s->vmas[node[24 + n - 1]].vm_end)
		return node[24 + n - 1];
	return s->vmas[node[24 + n - 1]].vm_next;
}

struct maple_range_64 {
	int64_t parent, pivot[15], slot[16];
};

struct maple_arange_64 {
	int64_t parent, pivot[9], slot[10], gap[10], meta, pad;
};

static inline int64_t maple(const struct space *s, int64_t addr)
{
	int64_t enode, max;
again:
	enode = *s->mm_rb;
	max = (1LL << 62) - 1;
	if (!enode)
		return 0;
	while ((enode >> 3 & 15) != 1) {
		const struct maple_arange_64 *node = (const void *)(s->private0 + 32 * (enode >> 8));
		int end = node->meta, i = 0;
		int64_t next;

		while (i < end && node->pivot[i] < addr)
			i++;
		next = node->slot[i];
		if (i < end)
			max = node->pivot[i];
		if (node->parent >> 8 == enode >> 8)
			goto again;
		enode = next;
	}
	const struct maple_range_64 *leaf = (const void *)(s->private0 + 32 * (enode >> 8));
	int end = 15, i = 0;
	int64_t entry;

	if (!leaf->pivot[14])
		end = leaf->slot[15];
	else if (leaf->pivot[14] == max)
		end = 14;
	while (i < end && leaf->pivot[i] < addr)
		i++;
	entry = leaf->slot[i];
	if (!entry && i < end)
		entry = leaf->slot[i + 1];
	if (leaf->parent >> 8 == enode >> 8)
		goto again;
	return entry;
}

static inline int64_t vmacache_by(const struct space *s, int64_t addr, int first, int hash, int asks)
{
	int64_t vma;

	if (*s->task_mm == *s->id) {
		if (*s->task_seqnum != *s->mm_seqnum) {
			*s->task_seqnum = *s->mm_seqnum;
			s->slots[0] = s->slots[1] = s->slots[2] = s->slots[3] = 0;
		} else {
			for (int i = 0; i < 4; i++) {
				vma = s->slots[(first + i) & 3];
				if (asks && vma && s->vmas[vma].vm_mm != *s->id)
					break;
				if (vma && s->vmas[vma].vm_start <= addr && addr < s->vmas[vma].vm_end)
					return vma;
			}
		}
	}
	vma = avl(s, addr); /* the same walk for every binary tree */
	if (vma && *s->task_mm == *s->id)
		s->slots[hash] = vma;
	return vma;
}

static inline int64_t vmacache(const struct space *s, int64_t addr)
{
	return vmacache_by(s, addr, 0, addr >> 12 & 3, 1);
}

static inline int64_t vmacache_pmd(const struct space *s, int64_t addr)
{
	return vmacache_by(s, addr, addr >> 21 & 3, addr >> 21 & 3, 0);
}

#define LOOKUP(name)                                                                         \
	int64_t walk_##name(const struct space *s, int64_t first, int64_t last)              \
	{                                                                                    \
		int64_t sum = 0;                                                             \
		for (int64_t i = first; i < last; i++)                                       \
			sum += name(s, s->events[i].addr);                                   \
		return sum;                                                                  \
	}                                                                                    \
	void answers_##name(const struct space *s, int64_t first, int64_t last, int64_t *out) \
	{                                                                                    \
		for (int64_t i = first; i < last; i++)                                       \
			out[i - first] = name(s, s->events[i].addr);                         \
	}

LOOKUP(avl)
LOOKUP(sorted_array)
LOOKUP(eytzinger)
LOOKUP(btree)
LOOKUP(maple)
LOOKUP(vmacache)
LOOKUP(vmacache_pmd)
