"""Write the nominal statistics of all shipped workloads, default parameters and seed 0.

    python tools/nominal.py              all of them (two minutes)
    python tools/nominal.py zipf ebizzy  these; the others stay as they are

``benchframe show`` and ``benchframe trace info`` compare with those of the recorded programs
(benchframe/trace/analysis.py).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchframe.registry import load
from benchframe.strategy import PROJECT
from benchframe.trace.analysis import nominal

FILE = Path(__file__).resolve().parent.parent / "workloads" / "benchframe_workloads" / "data" / "nominal.json"


def main() -> None:
    """Compute what is asked for, and write the file in the order of names."""
    known = load()
    shipped = [name for name in known.workloads if known.origins["workload", name].distribution == PROJECT]
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    found = {name: values for name, values in kept.items() if name in shipped}
    for name in sys.argv[1:] or shipped:
        found[name] = {key: float(f"{value:.6g}") for key, value in nominal(known.spec(name).trace(0)).items()}
        print(name, found[name], flush=True)
    lines = [f" {json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
