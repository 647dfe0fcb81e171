"""The canary for Numba's private parts: after an upgrade it names what broke, before strategies fail to compile."""

import signal
import subprocess
import sys
from importlib.metadata import requires, version
from types import SimpleNamespace
from typing import Any

import numba
import pytest
from numba.core.itanium_mangler import mangle
from packaging.requirements import Requirement

from benchframe.dialect import numba_internals
from benchframe.dialect.llvm import record_type
from benchframe.mm.layout import mm_struct


def library() -> Any:
    """The library of a small function, compiled as backend.compile_unit does."""

    def triangle(x: int) -> int:
        total = 0
        while x > 0:
            total += x
            x -= 1
        return total

    with numba_internals.unoptimised():
        made = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)(triangle)
        made.compile((numba.types.int64,))
        return made.overloads[made.signatures[0]].library


def test_numba_has_what_is_used() -> None:
    """Every private name exists in the installed Numba; if not, the assertion says which are gone."""
    assert numba_internals.broken(library()) == []


def test_a_part_that_is_gone_is_named() -> None:
    """A library without its module, its code generator without a target machine: both by name."""
    gone = numba_internals.broken(SimpleNamespace(_codegen=SimpleNamespace(_data_layout=""), _finalized=True))
    assert gone == ["library._final_module", "library._linking_libraries", "library._codegen._tm"]


BUSY = """
import hashlib, signal, sys
from benchframe.dialect.numba_internals import interruptible
signal.signal(signal.SIGINT, lambda *_: None)  # it comes before or during the call, and whoever answers is not Python
with interruptible():  # what follows keeps the main thread outside of Python, without its lock, as LLVM does
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
"""


def test_ctrl_c_while_llvm_works() -> None:
    """The signal is answered at once, with a line and the exit code, though the main thread cannot hear it."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "benchframe: interrupted while compiling; what was compiled is kept\n")


def test_lowered_is_not_yet_optimised_and_then_is() -> None:
    """The module comes as lowered, is changed by the passes, and leaves as an ELF object file."""
    made = library()
    module = numba_internals.module_of(made)
    before = str(module)
    numba_internals.optimise(made, module)
    assert str(module) != before
    assert numba_internals.emit(made, module).startswith(b"\x7fELF")


def test_a_symbol_does_not_depend_on_what_was_typed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba counts types; in a lowered function's symbol the number of a record's type must not occur, since another
    process, which may lower a function that this one calls, counts otherwise."""
    kind = record_type(mm_struct)

    def symbol() -> str:
        with numba_internals.unoptimised():
            return str(mangle("find_vma", (kind,)))

    before = symbol()
    monkeypatch.setattr(kind, "_code", kind._code + 1000)
    assert symbol() == before
    assert before != str(mangle("find_vma", (kind,)))


def test_numba_itself_is_as_before() -> None:
    """After a unit Numba compiles and runs functions in its own way again."""
    library()
    assert numba.njit(lambda x: x + 1)(41) == 42


def test_the_installed_numba_is_one_that_was_tested() -> None:
    """pyproject.toml bounds Numba from above, and this environment keeps to it."""
    (numba_,) = [r for text in requires("benchframe") or [] if (r := Requirement(text)).name == "numba"]
    assert "<" in str(numba_.specifier)
    assert numba_.specifier.contains(version("numba"))
