"""mmap_lock: the rw_semaphore of every mm (include/linux/mmap_lock.h). ``sem`` of these functions is the mm itself."""

from benchframe.mm.sync.rwsem import rwsem

mmap_sem = rwsem("mmap_lock", "mmap_lock_tail", "mmap_lock_head")
"""The functions over mm_struct's own words."""
mmap_down_read = mmap_sem.down_read
mmap_down_read_trylock = mmap_sem.down_read_trylock
mmap_up_read = mmap_sem.up_read
mmap_down_write = mmap_sem.down_write
mmap_down_write_trylock = mmap_sem.down_write_trylock
mmap_up_write = mmap_sem.up_write
mmap_downgrade_write = mmap_sem.downgrade_write
