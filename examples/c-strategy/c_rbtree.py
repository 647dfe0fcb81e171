"""c-rbtree: the red-black tree of `rbtree`, its lookup in C (rb_find.c).

The tree is built and changed by the text of the rbtree plugin; the hot path, find_vma's walk, is the C function, one
direct call from the compiled replay. `twin` is the same walk in the dialect: what `benchframe check` runs, since it
must see each access. Both are checked against the oracle.
"""

from benchframe.api import CSource, Index, Strategy, hookimpl
from benchframe_plugins.rbtree import rb_check, rb_erase, rb_find, rb_insert

C = CSource("rb_find.c")


@hookimpl
def benchframe_strategies():
    find = C.function("index_find", ("mm", "addr"), twin=rb_find)
    index = Index(find=find, insert=rb_insert, erase=rb_erase, check=rb_check)
    return [Strategy("c-rbtree", "the tree of rbtree, its lookup in C", index)]
