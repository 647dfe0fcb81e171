"""The command line: a module per group of commands; heavy modules are imported when a command runs.

``benchframe --help`` imports typer and nothing that computes.
"""

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from benchframe import __version__
from benchframe.cli import check, compare, cost, host, listing, manage, report, run, simulate, study, trace
from benchframe.cli import (
    options as common,
)

HELP = """Benchmark and check strategies for finding a VMA, on a faithful model of Linux's mm.

\b
Examples:
  benchframe list strategies
  benchframe run --quick --strategy pmdcache
  benchframe run --strategy pmdcache,mmap_cache --workload zipf:vmas=1000,alpha=1.2
  benchframe table last --format markdown
  benchframe report last

\b
Exit codes:
  0    success
  1    a cell is wrong, crashed or timed out; a check failed
  2    bad input or usage: a name, an option, a file, a plugin
  3    a problem with the machine: disk full, no permission
  130  Ctrl-C (143: SIGTERM); finished measurements are on disk, --resume continues
"""


class Grouped(TyperGroup):
    """A list of commands under headings, which typer itself prints only if rich draws the help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section per heading, in the order of registration."""
        groups: dict[str, list[tuple[str, str]]] = {}
        limit = formatter.width - 6 - max(map(len, self.commands))
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None)
            if not command.hidden:
                groups.setdefault(heading if isinstance(heading, str) else "Commands", []).append(
                    (name, command.get_short_help_str(limit))
                )
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


app = typer.Typer(
    name="benchframe",
    cls=Grouped,
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
def program(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
    common.settings.debug = debug
    for stream in (sys.stdout, sys.stderr):  # a terminal or locale that cannot show a character shows ? instead
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


_NO_PARSING = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Arguments after the recorded program's name belong to that program."""

MEASURE, UNDERSTAND, TRUST = "Measure", "Understand a result", "Decide whether to believe it"
RECORD, AUTHOR, HOUSEKEEPING = "Record programs", "Write plugins", "Housekeeping"
"""Headings of the list of commands."""


def _command(function: Any, name: str, heading: str, summary: str, **settings: Any) -> None:
    app.command(name, short_help=summary, rich_help_panel=heading, **settings)(function)


_command(run.run, "run", MEASURE, "Time strategies beside their baseline.")
_command(report.table, "table", MEASURE, "Print the latency table of a run.")
_command(simulate.simulate, "simulate", MEASURE, "Run strategies on 1 to 256 simulated CPUs.")
_command(report.report, "report", MEASURE, "Write the report of a run: page, tables, charts.")
_command(report.site, "site", MEASURE, "Write one page over many runs and bundles.")
_command(cost.cost, "cost", MEASURE, "Count loads, cache lines, atomics and branches.")
_command(cost.fork, "fork", MEASURE, "Measure what fork, exec and exit cost per VMA.")
_command(listing.list_, "list", MEASURE, "List strategies, workloads, traces or runs.")
_command(listing.show, "show", MEASURE, "Describe one strategy or workload.")
_command(
    study.advise,
    "advise",
    UNDERSTAND,
    "Say which kernel helps a program, and what it could do.",
    cls=study.ProgramAfterDashes,
)
_command(study.explain, "explain", UNDERSTAND, "Explain why one strategy is faster than another.")
_command(study.breakeven, "breakeven", UNDERSTAND, "Find where one strategy starts to beat another.")
_command(study.layout, "layout", UNDERSTAND, "Measure how much the memory layout changes a time.")
_command(compare.compare, "compare", UNDERSTAND, "Compare two runs, or two strategies of one run.")
_command(host.host, "host", UNDERSTAND, "Time a trace on the running kernel, beside the model.")
_command(report.history, "history", UNDERSTAND, "Find steps in a strategy's figures over dated runs.")
_command(study.claims, "claims", UNDERSTAND, "Compare published figures with measured ones.")
_command(check.check, "check", TRUST, "Check strategies alone and under every interleaving.")
_command(check.mutate, "mutate", TRUST, "Count the faults put into a strategy that a check finds.")
_command(host.oracle, "oracle", TRUST, "Compare the oracle with the running kernel.")
_command(check.selftest, "selftest", TRUST, "Measure the error rates of benchframe on this host.")
_command(compare.gate, "gate", TRUST, "Pass or fail a run against another, for CI.")
_command(compare.bundle, "bundle", TRUST, "Pack a run into one file that others can verify.")
_command(compare.verify, "verify", TRUST, "Run a bundle again here and compare the results.")
_command(trace.record, "record", RECORD, "Record the trace of a program.", context_settings=_NO_PARSING)
app.add_typer(trace.app, name="trace", short_help="Inspect, convert and verify traces.", rich_help_panel=RECORD)
_command(manage.new, "new", AUTHOR, "Create a plugin package that works.")
app.add_typer(
    manage.plugin_app, name="plugin", short_help="Manage the plugins that every command loads.", rich_help_panel=AUTHOR
)
_command(manage.header, "header", AUTHOR, "Print the records of the model as a C header.")
app.add_typer(
    manage.cache_app, name="cache", short_help="Show or clear the cache of compiled code.", rich_help_panel=HOUSEKEEPING
)
