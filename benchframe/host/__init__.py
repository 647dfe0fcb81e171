"""The running kernel's own time: a trace performed for real, call by call and fault by fault: ``benchframe host``.

Reading order: :mod:`program` (a trace becomes system calls and touches inside an arena, and the machine code that
performs and times them), :mod:`child` (the process in which it runs), :mod:`measure` (processes, statistics, fork and
exit by the number of VMAs, and what is printed).
"""
