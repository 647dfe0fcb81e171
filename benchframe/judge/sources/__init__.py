"""A kernel's own source files as judge: ``benchframe oracle --sources``.

lib/rbtree.c, lib/maple_tree.c and mm/vma.c of a source tree are compiled for user space and do what the strategies and
the oracle do; then both are compared, tree by tree. Reading order: :mod:`trees` (from a source
tree to a library, and the two sides of each), ``maple.c``, ``rbtree.c``, ``vma.c`` (ours: the drivers),
:mod:`benchframe.linux` (the kernel around those files), :mod:`programs` (random calls), :mod:`compare`.
"""
