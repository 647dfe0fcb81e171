/* SPDX-License-Identifier: MIT
 *
 * lib/maple_tree.c of a kernel's source tree as a library for ctypes: make a tree, store into it, read it node by node,
 * make exactly a given tree.
 *
 * A tree is a sequence of words (signed 64 bits), a node before its children:
 *     type, min, max, number of entries, (pivot, entry or 1, gap) per entry
 */
#include "lib/maple_tree.c"

SHIM_STATE;
#define mte_set_parent_of(mas, child, parent, slot) mte_set_parent(child, parent, slot) /* 6.1 */

/* 1 for USE_RCU: mmap_lock's holder changes a tree that others may read. */
struct maple_tree *k_new(int rcu)
{
	struct maple_tree *mt = calloc(1, sizeof(*mt));

	if (!maple_node_cache)
		maple_tree_init();
	mt_init_flags(mt, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_LOCK_EXTERN | (rcu ? MT_FLAGS_USE_RCU : 0));
	return mt;
}

void k_destroy(struct maple_tree *mt)
{
	__mt_destroy(mt);
	shim_grace_period();
	free(mt);
}

/* dup_mmap's copy of a tree (6.8 on). NULL: this kernel has none, or it failed. */
struct maple_tree *k_dup(struct maple_tree *mt)
{
	struct maple_tree *new = k_new(!!mt_in_rcu(mt));

	if (MT_DUP(mt, new, GFP_KERNEL)) {
		free(new);
		return NULL;
	}
	return new;
}

/* Whether fork may store in bulk mode. */
int k_has_bulk(void) { return HAS_BULK; }

/* dup_mmap's stores (6.1 to 6.7) into an empty tree: `count` times first, last, entry, in order. 0, or an error. */
int k_bulk(struct maple_tree *mt, const unsigned long *stores, long count)
{
	MA_STATE(mas, mt, 0, 0);
	bool rcu = mt_in_rcu(mt);
	int error;

	SHIM_ENTRY();
	mt_clear_in_rcu(mt);
	error = MAS_EXPECTED_ENTRIES(&mas, count);
	if (error)
		return error;
	for (; count; count--, stores += 3) {
		mas.index = stores[0];
		mas.last = stores[1];
		mas_store(&mas, (void *)stores[2]);
	}
	mas_destroy(&mas);
	if (rcu)
		mt_set_in_rcu(mt);
	shim_grace_period();
	return 0;
}

/* As vma_iter_store's mas_store_prealloc: 0, or an error. */
int k_store(struct maple_tree *mt, unsigned long first, unsigned long last, unsigned long entry)
{
	MA_STATE(mas, mt, first, last);
	int error;

	SHIM_ENTRY();
	error = mas_store_gfp(&mas, (void *)entry, GFP_KERNEL);
	shim_grace_period();
	return error;
}

unsigned long k_find(struct maple_tree *mt, unsigned long addr)
{
	return (unsigned long)mt_find(mt, &addr, ULONG_MAX);
}

/* unmapped_area_topdown's search: where the highest hole of this size begins; -1 if none. */
long k_gap(struct maple_tree *mt, unsigned long low, unsigned long high, unsigned long size)
{
	MA_STATE(mas, mt, 0, 0);

	if (mas_empty_area_rev(&mas, low, high - 1, size))
		return -1;
	return mas.last + 1 - size;
}

static long *out, written, room;

static void put(long word)
{
	if (written < room)
		out[written] = word;
	written++;
}

static void dump(struct maple_enode *enode, unsigned long min, unsigned long max)
{
	struct maple_node *node = mte_to_node(enode);
	enum maple_type type = mte_node_type(enode);
	unsigned long *pivots = ma_pivots(node, type), *gaps = ma_gaps(node, type);
	int end = ma_data_end(node, type, pivots, max), i;

	put(type);
	put(min);
	put(max);
	put(end + 1);
	for (i = 0; i <= end; i++) {
		put(i < mt_pivots[type] && pivots[i] ? pivots[i] : max);
		put(ma_is_leaf(type) ? (long)ma_slots(node, type)[i] : 1);
		put(gaps ? gaps[i] : 0);
	}
	if (ma_is_leaf(type))
		return;
	for (i = 0; i <= end; i++) {
		unsigned long top = i < mt_pivots[type] && pivots[i] ? pivots[i] : max;

		dump((void *)ma_slots(node, type)[i], min, top);
		min = top + 1;
	}
}

/* The words of the tree into `to`, as many as fit; their number. A tree without a node (empty, or one entry from 0 on)
 * has none. */
long k_dump(struct maple_tree *mt, long *to, long size)
{
	out = to;
	written = 0;
	room = size;
	if (xa_is_node(mt->ma_root))
		dump(mt->ma_root, 0, ULONG_MAX);
	return written;
}

static const long *in;

static struct maple_enode *load(struct ma_state *mas)
{
	enum maple_type type = in[0];
	long count = in[3], i;
	struct maple_node *node = kmem_cache_alloc(maple_node_cache, GFP_KERNEL);
	struct maple_enode *enode = mt_mk_node(node, type), *child;
	unsigned long *pivots = ma_pivots(node, type), *gaps = ma_gaps(node, type);
	void __rcu **slots = ma_slots(node, type);
	unsigned char largest = 0;

	in += 4;
	for (i = 0; i < count; i++, in += 3) {
		if (i < mt_pivots[type])
			pivots[i] = in[0];
		if (ma_is_leaf(type))
			slots[i] = (void *)in[1];
		if (gaps)
			gaps[i] = in[2];
	}
	if (type == maple_arange_64 || count <= mt_pivots[type])
		ma_set_meta(node, type, 0, count - 1);
	if (!ma_is_leaf(type))
		for (i = 0; i < count; i++) {
			child = load(mas);
			slots[i] = child;
			SET_PARENT(mas, child, enode, i);
		}
	if (type == maple_arange_64) {
		ma_max_gap(node, gaps, type, &largest);
		ma_set_meta(node, type, largest, count - 1);
	}
	return enode;
}

/* Make an empty tree this one, of `height` levels. */
void k_load(struct maple_tree *mt, const long *from, int height)
{
	MA_STATE(mas, mt, 0, 0);
	struct maple_enode *root;

	in = from;
	root = load(&mas);
	mte_to_node(root)->parent = ma_parent_ptr((unsigned long)mt | MA_ROOT_PARENT);
	mt->ma_flags = (mt->ma_flags & ~MT_FLAGS_HEIGHT_MASK) | height << MT_FLAGS_HEIGHT_OFFSET;
	mt->ma_root = mte_mk_root(root);
}
