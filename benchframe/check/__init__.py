"""The checker: strategy code under a scheduler that decides who runs at each access to shared memory.

Reading order: :mod:`execution` (one interleaving), :mod:`memory` (what its tasks share), :mod:`search` (which
interleavings), :mod:`cases` and :mod:`checker` (what must hold, and the counterexample), :mod:`conform` (one task after
the other). Without an order in time: :mod:`graph`, :mod:`axioms`, :mod:`trust`, :mod:`weak`, :mod:`failures`.
docs/checking.md explains what is and is not found.
"""
