/* SPDX-License-Identifier: MIT
 *
 * mm/vma.c of a kernel's source tree (6.12) as a library for ctypes: map, unmap, protect, a write fault. What the file
 * needs beside the maple tree is in the tree's own tools/testing/vma/vma_internal.h.
 */
#include "maple.c"
#include "vma_internal.h"

#ifndef VM_SEALED
#define VM_SEALED 0
#endif
#include "mm/vma.h"

/* No memory for the nodes of a store: as tools/testing/vma/vma.c lets vma_iter_prealloc fail, and munmap's store, too. */
static bool fail_prealloc;
#define vma_iter_prealloc(vmi, vma) (fail_prealloc ? -ENOMEM : mas_preallocate(&(vmi)->mas, (vma), GFP_KERNEL))
#define vma_iter_clear_gfp(vmi, start, end, gfp) (fail_prealloc ? -ENOMEM : vma_iter_clear_gfp(vmi, start, end, gfp))

/* mm/internal.h. A VMA of file CLOSING has something to close, but it does nothing. */
static inline void vma_close(struct vm_area_struct *vma) { }

/* The harness's own clone makes no chain, but a merge asks whether the chain is singular. */
static int chain_clone(struct vm_area_struct *to, struct vm_area_struct *from)
{
	struct anon_vma_chain *chain, *copy;

	list_for_each_entry(chain, &from->anon_vma_chain, same_vma) {
		copy = calloc(1, sizeof(*copy));
		copy->anon_vma = chain->anon_vma;
		list_add(&copy->same_vma, &to->anon_vma_chain);
	}
	if (!to->anon_vma)
		to->anon_vma = from->anon_vma;
	return 0;
}
#define anon_vma_clone chain_clone
#define unlink_anon_vmas(vma) do { } while (0)
#include "mm/vma.c"

#define FLAGS (VM_MAYREAD | VM_MAYWRITE | 0x40UL | 0x00200000UL) /* VM_MAYEXEC; VM_NORESERVE: nothing is accounted */
#define FILES 8
#define CLOSING 3 /* the number of the file whose VMAs have vm_ops->close */

const struct vm_operations_struct vma_dummy_vm_ops;
static const struct vm_operations_struct file_ops;
static const struct vm_operations_struct closing_ops = { .close = vma_close };
static struct task_struct task;
static struct address_space mappings[FILES];
static struct file files[FILES];
static struct mm_struct *mm;

struct task_struct *get_current(void) { return &task; }

/* From now on (1) there is no memory for nodes, or (0) there is. */
void v_fail_prealloc(int on) { fail_prealloc = on; }

/* Begin an empty address space. */
void v_new(void)
{
	if (!maple_node_cache)
		maple_tree_init();
	mm = task.mm = calloc(1, sizeof(*mm));
	mt_init_flags(&mm->mm_mt, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_LOCK_EXTERN);
	for (int i = 0; i < FILES; i++)
		files[i].f_mapping = &mappings[i];
}

int v_unmap(unsigned long start, unsigned long len)
{
	VMA_ITERATOR(vmi, mm, start);
	int error;

	SHIM_ENTRY();
	error = do_vmi_munmap(&vmi, mm, start, len, NULL, false);
	shim_grace_period();
	return error;
}

/* mmap(MAP_FIXED | MAP_PRIVATE), of file number `file` or (0) of anonymous memory, as mmap_region does it. */
int v_map(unsigned long start, unsigned long len, unsigned long prot, int file, unsigned long pgoff)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vma_merge_struct vmg = {
		.mm = mm, .vmi = &vmi, .start = start, .end = start + len, .flags = prot | FLAGS, .pgoff = pgoff,
	};
	struct vm_area_struct *vma;
	int error;

	if (vma_find(&vmi, start + len) && (error = v_unmap(start, len)))
		return error;
	SHIM_ENTRY();
	vma_iter_init(&vmi, mm, start);
	vmg.file = file ? &files[file] : NULL;
	vmg.next = vma_next(&vmi);
	vmg.prev = vma_prev(&vmi);
	if (vmg.prev)
		vma_iter_next_range(&vmi);
	vm_stat_account(mm, prot | FLAGS, len >> PAGE_SHIFT);
	if (vma_merge_new_range(&vmg))
		return 0;
	if (vmg.state == VMA_MERGE_ERROR_NOMEM)
		return -ENOMEM;
	vma = vm_area_alloc(mm);
	vma_set_range(vma, start, start + len, pgoff);
	vma->__vm_flags = prot | FLAGS;
	vma->vm_file = vmg.file;
	vma->vm_ops = file == CLOSING ? &closing_ops : file ? &file_ops : NULL;
	error = vma_link(mm, vma);
	shim_grace_period();
	return error;
}

/* mprotect, as do_mprotect_pkey and mprotect_fixup call mm/vma.c. */
int v_protect(unsigned long start, unsigned long len, unsigned long prot)
{
	unsigned long end = start + len, from = start, to;
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma = vma_find(&vmi, end), *prev;

	SHIM_ENTRY();
	if (!vma || vma->vm_start > start)
		return -ENOMEM;
	prev = vma_prev(&vmi); /* the loop begins behind it */
	if (start > vma->vm_start)
		prev = vma;
	to = vma->vm_start;
	for_each_vma_range(vmi, vma, end) {
		unsigned long flags = (vma->vm_flags & ~VM_ACCESS_FLAGS) | prot;

		if (vma->vm_start != to)
			return -ENOMEM;
		to = min(vma->vm_end, end);
		if (flags != vma->vm_flags) {
			vm_stat_account(mm, vma->vm_flags, -(long)((to - from) >> PAGE_SHIFT));
			vm_stat_account(mm, flags, (to - from) >> PAGE_SHIFT);
			vma = vma_modify_flags(&vmi, prev, vma, from, to, flags);
			if (IS_ERR(vma))
				return PTR_ERR(vma);
			vma->__vm_flags = flags;
		}
		prev = vma;
		from = to = vma_iter_end(&vmi);
	}
	shim_grace_period();
	return to < end ? -ENOMEM : 0;
}

/* __anon_vma_prepare of a write fault: 0, or -EFAULT where writing is not allowed. */
int v_fault(unsigned long addr)
{
	VMA_ITERATOR(vmi, mm, addr);
	struct vm_area_struct *vma = vma_find(&vmi, addr + 1);
	struct anon_vma_chain *chain;

	if (!vma || !(vma->vm_flags & VM_WRITE))
		return -EFAULT;
	if (vma->anon_vma)
		return 0;
	vma->anon_vma = find_mergeable_anon_vma(vma);
	if (!vma->anon_vma)
		vma->anon_vma = calloc(1, sizeof(*vma->anon_vma));
	chain = calloc(1, sizeof(*chain));
	chain->anon_vma = vma->anon_vma;
	list_add(&chain->same_vma, &vma->anon_vma_chain);
	return 0;
}

/* The maple tree of the address space, for k_dump. */
struct maple_tree *v_tree(void) { return &mm->mm_mt; }

/* (vm_start, vm_end, access flags, file, vm_pgoff of a file's) of every VMA; how many VMAs. */
long v_layout(unsigned long *to)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;
	long n = 0;

	for_each_vma(vmi, vma) {
		*to++ = vma->vm_start;
		*to++ = vma->vm_end;
		*to++ = vma->vm_flags & VM_ACCESS_FLAGS;
		*to++ = vma->vm_file ? vma->vm_file - files : 0;
		*to++ = vma->vm_file ? vma->vm_pgoff : 0;
		n++;
	}
	return n;
}
