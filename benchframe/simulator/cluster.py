"""Simulated cells on more than one machine: a Dask.distributed scheduler behind the interface of concurrent.futures.

``local:N`` starts a scheduler and N worker processes on this host's loopback; any other address is that of a running
scheduler. Cells are deterministic: a worker's answer does not depend on its host, and a worker whose sources or
compiler differ refuses the cell (:mod:`benchframe.simulator.campaign`). If a worker is killed, nothing is lost: the
scheduler gives its cell to another.

A scheduler runs whatever code it is sent, so an address on another host must be ``tls://``.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from benchframe.simulator.target import SimulateError

INSTALL = "pip install 'benchframe[cluster]'"
SECONDS = 20
"""Seconds after which a scheduler that does not answer is considered absent."""


def loopback(address: str) -> bool:
    """Whether ``address`` (tcp://host:port) is on this host.

    >>> loopback("tcp://127.0.0.1:8786"), loopback("tcp://[::1]:8786"), loopback("tcp://10.0.0.7:8786")
    (True, True, False)
    """
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked(address: str) -> str:
    """``address`` with its scheme. Raises SimulateError if it is not an address, or an unencrypted one of another host.

    >>> checked("localhost:8786"), checked("tls://big:8786")
    ('tcp://localhost:8786', 'tls://big:8786')
    """
    whole = address if "://" in address else f"tcp://{address}"
    parts = urlsplit(whole)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
        raise SimulateError(f"--cluster {address}: write local:N, HOST:PORT or tls://HOST:PORT")
    if parts.scheme == "tcp" and not loopback(whole):
        raise SimulateError(
            f"--cluster {address}: a scheduler runs the code that it is sent, so another host needs tls://; "
            "or forward its port to this one (ssh -L)"
        )
    return whole


@contextmanager
def cluster(address: str) -> Iterator[Callable[[], Executor]]:
    """A maker of executors on the scheduler at ``address``; ``local:N`` starts one, which ends with the block.

    Raises SimulateError if dask is not installed, or no scheduler answers.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise SimulateError(f"--cluster needs Dask: {INSTALL}") from None
    kind, _, count = address.partition(":")
    own: Any = None
    if kind == "local":
        if not count.isdecimal() or not 1 <= int(count) <= 1024:
            raise SimulateError(f"--cluster {address}: write local:N with N from 1")
        own = distributed.LocalCluster(
            n_workers=int(count),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        target: Any = own
    else:
        target = checked(address)
    try:
        try:
            client = distributed.Client(target, timeout=SECONDS, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise SimulateError(f"--cluster {address}: no scheduler answers there: {error}") from None
        with client:
            yield lambda: client.get_executor(pure=False)
    finally:
        if own is not None:
            own.close()
