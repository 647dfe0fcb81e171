/*
 * find_vma's walk of the red-black tree, as mm/mmap.c had it from 2.4.10 to 6.0, over benchframe's records.
 *
 * benchframe.h is there already. References are indices, 0 is none: VMA(mm, i) gives the record.
 */

/* The first VMA with addr < vm_end, 0 if none. Caller holds mmap_lock. O(log n). */
int64_t index_find(struct mm_struct *mm, int64_t addr)
{
	int64_t node = mm->mm_rb, found = 0;

	while (node) {
		const struct vm_area_struct *v = VMA(mm, node);

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
