"""The running kernel judges a model of the address space: ``benchframe oracle``.

Reading order: :mod:`child` (runs on the kernel), :mod:`programs` (operations, generators, and the interface of a judged
side), :mod:`judge` (how the kernel is called, the comparison, shrinking, and which rules and limits hold here),
:mod:`command` (small programs to run by hand, and the report); :mod:`benchframe.guest` has another kernel in a virtual
machine.
"""
