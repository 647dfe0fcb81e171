"""Where a run was made: versions, host, and what about the machine makes figures unsteady."""

from __future__ import annotations

import os
import platform
import socket
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchframe.files import printable

_PACKAGES = ("benchframe", "numba", "llvmlite", "numpy", "pyperf")


def versions() -> dict[str, str]:
    """Versions of all that decides a figure besides the strategy, the trace and the host."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def host() -> dict[str, str]:
    """What identifies the machine as far as figures go: they are not comparable if one of these differs."""
    return {
        "hostname": socket.gethostname(),
        "cpu": _cpu_model(),
        "cpus": str(os.cpu_count() or 1),
        "machine": platform.machine(),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def noise() -> list[str]:
    """Reasons to expect noise, each one line: other load, frequency scaling, no ASLR. Linux only."""
    found = []
    with suppress(OSError):
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
        if load > 0.5 * cpus:
            found.append(f"other programs keep the machine busy (load {load:.1f} on {cpus} CPUs)")
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor not in ("", "performance"):
        found.append(f"the CPU frequency governor is '{governor}'; 'performance' is steadier")
    if (
        _read("/sys/devices/system/cpu/intel_pstate/no_turbo") == "0"
        or _read("/sys/devices/system/cpu/cpufreq/boost") == "1"
    ):
        found.append("turbo frequencies are on: figures depend on heat")
    if _read("/proc/sys/kernel/randomize_va_space") == "0":
        found.append("address space randomisation is off: all processes share one layout of the heap")
    if " hypervisor" in _read("/proc/cpuinfo", 1 << 16):
        found.append("this is a virtual machine: other guests share the CPUs and caches")
    return found


def differences(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """``name: then -> now`` for each member that differs."""
    return [
        f"{k}: {then.get(k, 'none')} -> {now.get(k, 'none')}"
        for k in sorted({*then, *now})
        if then.get(k) != now.get(k)
    ]


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo", 1 << 16).splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or sys.platform


def _read(path: str, limit: int = 4096) -> str:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return printable(file.read(limit).strip())
    except OSError:
        return ""
