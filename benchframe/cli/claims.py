"""``benchframe claims``: published figures beside measured ones."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import guarded, loaded, plugin_files, split
from benchframe.errors import UsageError, did_you_mean


@guarded
def claims(
    names: Annotated[list[str] | None, typer.Argument(metavar="[CLAIM]...", help="Claims (default: all).")] = None,
    counted: Annotated[
        bool, typer.Option("--counted", help="Only hit rates, which are the same on every machine.")
    ] = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Only curves, which are simulated: the same on every x86-64 host.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=2, max=10_000, metavar="N", help="Number of processes per claim.")] = 6,
    form: Annotated[str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv or latex.")] = "text",
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
) -> None:
    """Re-enact what was published about VMA lookups, and say whether direction and order are the same here.

    Hit rates are counted; ratios of times are measured in paired rounds, with 95 % intervals. A claim that needs more
    CPUs than this machine has is listed but not judged. A claim about threads runs a thread per CPU; with fewer threads
    than published only its direction is judged. Curves over many CPUs are simulated on a described machine, and told
    with what had to be assumed. docs/claims.md says which workload represents each published load.

    Exit codes: 0, 2 (bad input or usage), 3 (the environment).

    \b
    Examples:
      benchframe claims
      benchframe claims --counted
      benchframe claims --simulated
      benchframe claims maple-wash rcu-mode --rounds 20
    """
    from benchframe.cli.table import check_form
    from benchframe.cli.terminal import shown
    from benchframe.engine.job import spare_cpu
    from benchframe.study.claims import claims_table, measure
    from benchframe.study.published import CLAIMS, CurveClaim, HitClaim

    check_form(form)
    if form == "mail":
        raise UsageError("claims has no mail format; use --format text")
    by_name = {claim.name: claim for claim in CLAIMS}
    for name in names or ():
        if name not in by_name:
            raise UsageError(f"there is no claim {name!r}; {did_you_mean(name, by_name)}")
    chosen = [by_name[name] for name in dict.fromkeys(names or by_name)]
    if counted or simulated:
        kinds = (HitClaim,) * counted + (CurveClaim,) * simulated
        chosen = [claim for claim in chosen if isinstance(claim, kinds)]
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    cpu = spare_cpu()
    outcomes = measure(
        known,
        chosen,
        rounds,
        lambda text: typer.echo(f"benchframe: {text}", err=True),
        cpu=-1 if cpu is None else cpu,
        plugins=[str(path) for path in files],
        blocked=split(no_plugin),
    )
    typer.echo(shown(claims_table(outcomes), form), nl=False)
