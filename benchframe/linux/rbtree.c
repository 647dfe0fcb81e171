/* SPDX-License-Identifier: MIT
 *
 * lib/rbtree.c of a kernel's source tree as a library for ctypes: the VMA tree of mm/mmap.c up to 6.0, without gaps
 * (up to 3.7) and with them (from 3.8). VMAs are numbers from 1 on.
 */
#include "lib/rbtree.c"

SHIM_STATE;

struct vma {
	struct rb_node rb;
	unsigned long start, end; /* bounds, as the search of an insertion sees them */
	unsigned long gap;        /* the hole below it, less a stack's guard gap */
	unsigned long subtree_gap;
};

static struct vma *vmas;
static long count;
static struct rb_root root;
static bool with_gaps;

static inline unsigned long own_gap(struct vma *vma) { return vma->gap; }
RB_DECLARE_CALLBACKS_MAX(static, gap_callbacks, struct vma, rb, unsigned long, subtree_gap, own_gap)

/* Begin an empty tree of up to `n` VMAs. */
void r_reset(long n, int gaps)
{
	free(vmas);
	vmas = calloc(n + 1, sizeof(*vmas));
	count = n;
	root = RB_ROOT;
	with_gaps = gaps;
}

/* A VMA's bounds and own gap are these now. */
void r_set(long number, unsigned long start, unsigned long end, unsigned long gap)
{
	vmas[number].start = start;
	vmas[number].end = end;
	vmas[number].gap = gap;
}

/* vma_gap_update: the gap of a VMA in the tree has changed. */
void r_update(long number)
{
	if (with_gaps)
		gap_callbacks_propagate(&vmas[number].rb, NULL);
}

/* find_vma_links, __vma_link_rb */
void r_insert(long number)
{
	struct rb_node **link = &root.rb_node, *parent = NULL;

	while (*link) {
		parent = *link;
		if (vmas[number].start < rb_entry(parent, struct vma, rb)->end)
			link = &parent->rb_left;
		else
			link = &parent->rb_right;
	}
	rb_link_node(&vmas[number].rb, parent, link);
	if (with_gaps) {
		vmas[number].subtree_gap = 0;
		r_update(number);
		rb_insert_augmented(&vmas[number].rb, &root, &gap_callbacks);
	} else {
		rb_insert_color(&vmas[number].rb, &root);
	}
}

void r_erase(long number)
{
	if (with_gaps)
		rb_erase_augmented(&vmas[number].rb, &root, &gap_callbacks);
	else
		rb_erase(&vmas[number].rb, &root);
}

static long number_of(struct rb_node *node) { return node ? rb_entry(node, struct vma, rb) - vmas : 0; }

static long dump(struct rb_node *node, long *to)
{
	long words = 6;

	if (!node)
		return 0;
	to[0] = number_of(node);
	to[1] = number_of(rb_parent(node));
	to[2] = number_of(node->rb_left);
	to[3] = number_of(node->rb_right);
	to[4] = node->__rb_parent_color & 1;
	to[5] = with_gaps ? rb_entry(node, struct vma, rb)->subtree_gap : 0;
	words += dump(node->rb_left, to + words);
	return words + dump(node->rb_right, to + words);
}

/* (number, parent, left, right, 1 for black, subtree's gap) of every node, a node before its children; how many words. */
long r_dump(long *to) { return dump(root.rb_node, to); }
