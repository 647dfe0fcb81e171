"""The running kernel judges a model of the address space: ``benchframe oracle``.

A reading order: :mod:`child` (what runs on the kernel), :mod:`kernel` (how it is asked), :mod:`ops` (operations, and
what a judged side offers), :mod:`generators`, :mod:`judge` (the comparison), :mod:`shrink` and :mod:`snippet` (small
reproducers), :mod:`probe` and :mod:`sides` (which rules and limits hold here), :mod:`command`.
"""
