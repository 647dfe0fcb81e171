"""The GitHub Actions example: its YAML, and its shell steps run here as a runner would run them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.compile import compiled

from benchframe.registry import load

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "examples" / "github-actions" / "gate.yml"


def workflow() -> dict[str, Any]:
    """The parsed file. YAML 1.1 reads the key `on` as true."""
    data: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    return {"on" if key is True else str(key): value for key, value in data.items()}


def steps() -> list[dict[str, Any]]:
    """The steps of its one job."""
    (job,) = workflow()["jobs"].values()
    return list(job["steps"])


def shell(name: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one step's script as Actions does (bash -e, the workflow's env), in ``folder``."""
    (script,) = (step["run"] for step in steps() if step.get("name") == name)
    base = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{base['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-c", script],
        cwd=folder,
        env={**base, **workflow()["env"], **env, "PATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_it_is_a_workflow() -> None:
    """It parses, asks for no right but reading, pins actions to versions, and its scripts are sound."""
    data = workflow()
    assert set(data) == {"name", "on", "permissions", "env", "jobs"}
    assert data["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in steps() if "uses" in step]
    assert all("@v" in name for name in used)
    assert WORKFLOW.read_text().count("${{") == 1
    assert (ROOT / data["env"]["PLUGIN"]).is_file()
    for step in steps():
        assert ("run" in step) != ("uses" in step)
        if "run" in step:
            subprocess.run(["bash", "-n", "-c", step["run"]], check=True, timeout=20)


def test_its_commands_take_its_options() -> None:
    """Every option that a step passes to benchframe exists."""
    for step in steps():
        for line in step.get("run", "").splitlines():
            words = line.split()
            if words[:1] != ["benchframe"]:
                continue
            shown = subprocess.run(
                [sys.executable, "-m", "benchframe", words[1], "--help"], capture_output=True, text=True, timeout=60
            ).stdout
            for word in (*words[2:], *workflow()["env"]["DEPTH"].split()):
                if word.startswith("--") and (word not in workflow()["env"]["DEPTH"] or words[1] == "run"):
                    assert word in shown, (step["name"], word)


@pytest.mark.slow
@pytest.mark.timeout(600)  # from an empty cache, on a machine that is busy with other things
def test_its_steps_gate(tmp_path: Path) -> None:
    """The steps as they stand, on a tiny run: the same plugin passes, one that does more work in each lookup fails by
    its counted cost, and the table is in the summary."""
    plugin = Path(workflow()["env"]["PLUGIN"])
    compiled(load().strategy("rbtree"), timed=True)
    for side in ("base", "new"):
        (tmp_path / side / plugin).parent.mkdir(parents=True)
        shutil.copy(ROOT / plugin, tmp_path / side / plugin)
    compiled(load([tmp_path / "base" / plugin]).strategy("two-entry"), timed=True)
    tiny = {
        "DEPTH": "--quick --rounds 1",
        "WORKLOAD": "zipf:vmas=50,events=4000",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    done = shell("Time the base", tmp_path, **tiny)
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "runs" / "base", tmp_path / "runs" / "new")  # as if nothing had changed
    gated = shell("Gate", tmp_path, **tiny)
    assert gated.returncode == 0, gated.stdout + gated.stderr
    assert "2 of 2 cells compared exactly" in gated.stdout
    assert "| two-entry" in (tmp_path / "summary").read_text()
    text = (tmp_path / "new" / plugin).read_text()
    worse = text.replace("    for vma in", "    mm.strategy0 += 0\n    for vma in", 1)
    assert worse != text
    (tmp_path / "new" / plugin).write_text(worse)
    compiled(load([tmp_path / "new" / plugin]).strategy("two-entry"), timed=True)
    done = shell("Time the pull request", tmp_path, **tiny)
    assert done.returncode == 0, done.stderr
    refused = shell("Gate", tmp_path, **tiny)
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "regression: cost: two-entry on zipf:vmas=50,events=4000, lookup.loads:" in refused.stdout
