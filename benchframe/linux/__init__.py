"""The kernel's own files in user space: a source tree, and ``shim.h``, the kernel around them."""
