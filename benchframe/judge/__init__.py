"""The running kernel judges a model of the address space: ``benchframe oracle``.

Reading order: :mod:`child` (runs on the kernel), :mod:`kernel` (how it is called), :mod:`programs` (operations,
generators, and the interface of a judged side), :mod:`judge` (the comparison, shrinking, and which rules and limits
hold here), :mod:`reproducer` (small programs to run by hand), :mod:`guest` (another kernel in a virtual machine),
:mod:`command`.
"""
