"""Shell completion of names; silent about everything that goes wrong, because a shell is waiting."""

from collections.abc import Callable, Iterable


def _names(kind: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        try:
            from benchframe.plugin_paths import plugin_files
            from benchframe.registry import load

            known = load(plugin_files()[0])
            names: Iterable[str] = known.strategies if kind == "strategy" else known.workloads
        except Exception:  # completion must never print
            return []
        return matching(incomplete, names)

    return complete


def matching(incomplete: str, names: Iterable[str]) -> list[str]:
    """Completions of the last name of a comma-separated list.

    >>> matching("rbtree,pm", ["rbtree", "pmdcache"])
    ['rbtree,pmdcache']
    """
    head, comma, last = incomplete.rpartition(",")
    given = head.split(",")
    return [f"{head}{comma}{name}" for name in sorted(names) if name.startswith(last) and name not in given]


strategies = _names("strategy")
workloads = _names("workload")


def anything(incomplete: str) -> list[str]:
    """Names of strategies and workloads."""
    return strategies(incomplete) + workloads(incomplete)


def runs(incomplete: str) -> list[str]:
    """Names of runs below reports/runs, the newest first."""
    try:
        from benchframe.results.folder import list_runs

        return [name for name in ["last", *(p.name for p in reversed(list_runs()))] if name.startswith(incomplete)]
    except Exception:  # completion must never print
        return []
