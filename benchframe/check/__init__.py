"""The checker: strategy code under a scheduler that decides who runs at each access to shared memory.

``world`` holds the memory, ``run`` executes one interleaving, ``explore`` and ``sample`` choose interleavings,
``story`` tells a failure. docs/checking.md explains what is and is not found.
"""
