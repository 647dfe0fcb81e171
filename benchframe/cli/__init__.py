"""The command line: one small module per subcommand; what is heavy is imported when a command runs.

``benchframe --help`` imports typer and nothing that computes.
"""

from typing import Annotated

import typer

from benchframe import __version__
from benchframe.cli import (
    breakeven,
    bundle,
    cache,
    check,
    claims,
    common,
    compare,
    cost,
    explain,
    gate,
    header,
    layout,
    listing,
    new,
    oracle,
    plugin,
    record,
    report,
    run,
    selftest,
    show,
    simulate,
    table,
    trace,
)

HELP = """Benchmark and judge VMA-lookup strategies on a faithful model of Linux's mm.

\b
Examples:
  benchframe list strategies
  benchframe run --quick --strategy pmdcache
  benchframe run --strategy pmdcache,mmap_cache --workload zipf:vmas=1000,alpha=1.2
  benchframe table last --format markdown
  benchframe report last

\b
Exit codes:
  0    all is well
  1    a cell is wrong, crashed or timed out; a check failed
  2    bad input or usage: a name, an option, a file, a plugin
  3    the environment: disk full, no permission
  130  Ctrl-C (143: SIGTERM); what was measured is on disk, --resume continues
"""

app = typer.Typer(
    name="benchframe",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"benchframe {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
    common.settings.debug = debug


_NO_PARSING = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""What follows the recorded program's name is the program's."""

app.command("run", short_help="Time strategies beside their baseline.")(run.run)
app.command("list", short_help="List strategies, workloads, traces or runs.")(listing.list_)
app.command("show", short_help="Show all about one strategy or workload.")(show.show)
app.command("table", short_help="Print a run's latency table.")(table.table)
app.command("cost", short_help="Count loads, lines, atomics and branches.")(cost.cost)
app.command("explain", short_help="Why one strategy beats another.")(explain.explain)
app.command("breakeven", short_help="Where one strategy begins to beat another.")(breakeven.breakeven)
app.command("layout", short_help="How much of a time is the layout's.")(layout.layout)
app.command("simulate", short_help="Strategies on 1 to 256 simulated CPUs.")(simulate.simulate)
app.command("report", short_help="Write a report of a run: page, tables, charts.")(report.report)
app.command("compare", short_help="Compare two runs, or two strategies of one.")(compare.compare)
app.command("gate", short_help="Judge a run against another: an exit code for CI.")(gate.gate)
app.command("selftest", short_help="Measure the tool itself on this host.")(selftest.selftest)
app.command("bundle", short_help="Pack a run into one file that others can check.")(bundle.bundle)
app.command("verify", short_help="Run a bundle's cells again and say whether they agree.")(bundle.verify)
app.command("record", short_help="Record a program's trace.", context_settings=_NO_PARSING)(record.record)
app.add_typer(trace.app, name="trace", short_help="Look into, convert and verify traces.")
app.command("check", short_help="Check strategies, alone and under every interleaving.")(check.check)
app.command("oracle", short_help="Let the running kernel judge the oracle.")(oracle.oracle)
app.command("claims", short_help="Published figures beside measured ones.")(claims.claims)
app.command("new", short_help="Begin a plugin: a package that works.")(new.new)
app.command("header", short_help="The records as a C header.")(header.header)
app.add_typer(plugin.app, name="plugin", short_help="Plugins that are loaded from where they lie.")
app.add_typer(cache.app, name="cache", short_help="The store of compiled code.")
