/*
 * The rb-tree walk of find_vma in C, over the records that the model made, and what c_walk.py needs to be sure that
 * both sides see the same memory. Compiled by c_walk.py: gcc -O2 -fPIC -shared.
 *
 * References are indices of 192-byte records, 0 is NULL, as in the model; the kernel has pointers there.
 */
#include <stddef.h>
#include <stdint.h>

struct vm_area_struct {
	int64_t vm_start, vm_end, vm_next, vm_prev;
	int64_t rb_parent_color, rb_right, rb_left, rb_subtree_gap;
	int64_t rest[16];
};

struct event {
	int64_t addr, len, offset, new_len, ret;
	int32_t kind, task, mm, prot, flags, file;
};

/* Sizes and offsets in the order of c_walk.py's LAYOUT. */
const int64_t layout[] = {
	sizeof(struct vm_area_struct), offsetof(struct vm_area_struct, vm_start), offsetof(struct vm_area_struct, vm_end),
	offsetof(struct vm_area_struct, rb_right), offsetof(struct vm_area_struct, rb_left),
	sizeof(struct event), offsetof(struct event, addr),
};

static int64_t find_vma(const struct vm_area_struct *vmas, int64_t node, int64_t addr)
{
	int64_t found = 0;

	while (node) {
		const struct vm_area_struct *v = &vmas[node];

		if (addr < v->vm_end) {
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

/* The sum of what find_vma gives for events [first, last). */
int64_t walk(const struct vm_area_struct *vmas, const int64_t *root, const struct event *events, int64_t first,
	     int64_t last)
{
	int64_t sum = 0;

	for (int64_t i = first; i < last; i++)
		sum += find_vma(vmas, *root, events[i].addr);
	return sum;
}

/* What find_vma gives for each of events [first, last). */
void answers(const struct vm_area_struct *vmas, const int64_t *root, const struct event *events, int64_t first,
	     int64_t last, int64_t *out)
{
	for (int64_t i = first; i < last; i++)
		out[i - first] = find_vma(vmas, *root, events[i].addr);
}
