"""The red-black tree's nodes and their balance: links, colours, rotations; what keeps invariants 1 to 3 (lib/rbtree.c).

What they are for: :mod:`benchframe_plugins.rbtree`. Who changes something holds mmap_lock for write.
"""

from benchframe.api import NULL, VMA, hook, native

RED, BLACK = 0, 1


@native
def rb_parent(mm, node):
    """The parent of ``node``, NULL for the root."""
    return VMA(mm, node).rb_parent_color >> 1


@native
def rb_is_black(mm, node):
    """NULL counts as black."""
    return node == NULL or VMA(mm, node).rb_parent_color & 1


@native
def rb_set_parent(mm, node, parent):
    """Change the parent, keep the colour."""
    n = VMA(mm, node)
    n.rb_parent_color = (parent << 1) | (n.rb_parent_color & 1)
    return 0


@native
def rb_set_color(mm, node, color):
    """Change the colour, keep the parent."""
    n = VMA(mm, node)
    n.rb_parent_color = (n.rb_parent_color & ~1) | color
    return 0


@hook("index")
def rb_changed(mm, node):
    """``node``'s children changed: recompute what it says of its subtree. Nothing in the plain tree."""
    return 0


@native
def rb_replace_child(mm, parent, old, new):
    """``parent`` (NULL: the root pointer) points to ``new`` where it pointed to ``old``."""
    if parent == NULL:
        mm.mm_rb = new
    elif VMA(mm, parent).rb_left == old:
        VMA(mm, parent).rb_left = new
    else:
        VMA(mm, parent).rb_right = new
    return 0


@native
def rb_rotate_left(mm, node):
    """Rotate ``node`` down to the left; ``right`` takes its place.

    ```
          parent                parent
            |                     |
           node                 right
          /    \\      ->        /     \\
         a    right           node     c
             /     \\         /    \\
            b       c       a      b
    ```
    """
    n = VMA(mm, node)
    right = n.rb_right
    r = VMA(mm, right)
    parent = rb_parent(mm, node)
    n.rb_right = r.rb_left
    if r.rb_left != NULL:
        rb_set_parent(mm, r.rb_left, node)
    r.rb_left = node
    rb_set_parent(mm, right, parent)
    rb_replace_child(mm, parent, node, right)
    rb_set_parent(mm, node, right)
    rb_changed(mm, node)
    rb_changed(mm, right)
    return right


@native
def rb_rotate_right(mm, node):
    """Rotate ``node`` down to the right; ``left`` takes its place.

    ```
            parent            parent
              |                 |
             node              left
            /    \\     ->     /    \\
          left    c          a     node
         /    \\                   /    \\
        a      b                 b      c
    ```
    """
    n = VMA(mm, node)
    left = n.rb_left
    l = VMA(mm, left)  # noqa: E741
    parent = rb_parent(mm, node)
    n.rb_left = l.rb_right
    if l.rb_right != NULL:
        rb_set_parent(mm, l.rb_right, node)
    l.rb_right = node
    rb_set_parent(mm, left, parent)
    rb_replace_child(mm, parent, node, left)
    rb_set_parent(mm, node, left)
    rb_changed(mm, node)
    rb_changed(mm, left)
    return left


@native
def rb_insert_color(mm, node):
    """Restore invariant 2 after the red ``node`` was linked: colours up, at most two rotations.

    ```
    uncle red: recolour, go on at G      uncle black: straighten, then rotate G
          G              g                    G             G            P
         / \\            / \\                  / \\           / \\          / \\
        p   u    ->    P   U                p   U   ->    n   U   ->   n   g
        |              |                     \\           /                  \\
        n              n                      n         p                    U
    ```
    (upper case is black; the mirror images likewise)
    """
    parent = rb_parent(mm, node)
    while parent != NULL and not rb_is_black(mm, parent):
        grand = rb_parent(mm, parent)
        on_left = VMA(mm, grand).rb_left == parent
        uncle = VMA(mm, grand).rb_left
        if on_left:
            uncle = VMA(mm, grand).rb_right
        if not rb_is_black(mm, uncle):
            rb_set_color(mm, uncle, BLACK)
            rb_set_color(mm, parent, BLACK)
            rb_set_color(mm, grand, RED)
            node = grand
        else:
            if on_left:
                if VMA(mm, parent).rb_right == node:
                    node = parent
                    parent = rb_rotate_left(mm, parent)
                rb_set_color(mm, parent, BLACK)
                rb_set_color(mm, grand, RED)
                rb_rotate_right(mm, grand)
            else:
                if VMA(mm, parent).rb_left == node:
                    node = parent
                    parent = rb_rotate_right(mm, parent)
                rb_set_color(mm, parent, BLACK)
                rb_set_color(mm, grand, RED)
                rb_rotate_left(mm, grand)
        parent = rb_parent(mm, node)
    rb_set_color(mm, mm.mm_rb, BLACK)
    return 0


@native
def rb_erase_color(mm, node, parent):
    """Restore invariant 3: ``node`` (maybe NULL), a child of ``parent``, is one black short.

    ```
    sibling red: rotate, then it is black   both nephews black: recolour, go up
         P                S                        p               P
        / \\              / \\                      / \\             / \\
       N   s      ->    p   C                    N   S     ->    N   s
          / \\          / \\                          / \\             / \\
         B   C        N   B                        B   C           B   C
    far nephew red: rotate the parent; done   (only the near one red: rotate the sibling first)
         (p)              (s)
         / \\              / \\
        N   S      ->    P   C
           / \\          / \\
         (b)  c        N  (b)
    ```
    """
    while parent != NULL and rb_is_black(mm, node):
        if VMA(mm, parent).rb_left == node:
            other = VMA(mm, parent).rb_right
            if not rb_is_black(mm, other):
                rb_set_color(mm, other, BLACK)
                rb_set_color(mm, parent, RED)
                rb_rotate_left(mm, parent)
                other = VMA(mm, parent).rb_right
            if rb_is_black(mm, VMA(mm, other).rb_left) and rb_is_black(mm, VMA(mm, other).rb_right):
                rb_set_color(mm, other, RED)
                node = parent
                parent = rb_parent(mm, node)
            else:
                if rb_is_black(mm, VMA(mm, other).rb_right):
                    rb_set_color(mm, VMA(mm, other).rb_left, BLACK)
                    rb_set_color(mm, other, RED)
                    other = rb_rotate_right(mm, other)
                rb_set_color(mm, other, VMA(mm, parent).rb_parent_color & 1)
                rb_set_color(mm, parent, BLACK)
                rb_set_color(mm, VMA(mm, other).rb_right, BLACK)
                rb_rotate_left(mm, parent)
                node = mm.mm_rb
                parent = NULL
        else:
            other = VMA(mm, parent).rb_left
            if not rb_is_black(mm, other):
                rb_set_color(mm, other, BLACK)
                rb_set_color(mm, parent, RED)
                rb_rotate_right(mm, parent)
                other = VMA(mm, parent).rb_left
            if rb_is_black(mm, VMA(mm, other).rb_left) and rb_is_black(mm, VMA(mm, other).rb_right):
                rb_set_color(mm, other, RED)
                node = parent
                parent = rb_parent(mm, node)
            else:
                if rb_is_black(mm, VMA(mm, other).rb_left):
                    rb_set_color(mm, VMA(mm, other).rb_right, BLACK)
                    rb_set_color(mm, other, RED)
                    other = rb_rotate_left(mm, other)
                rb_set_color(mm, other, VMA(mm, parent).rb_parent_color & 1)
                rb_set_color(mm, parent, BLACK)
                rb_set_color(mm, VMA(mm, other).rb_left, BLACK)
                rb_rotate_right(mm, parent)
                node = mm.mm_rb
                parent = NULL
    if node != NULL:
        rb_set_color(mm, node, BLACK)
    return 0
