"""Tables of made-up cells in every format; names that try to break each of them."""

import csv
import io
import re
from dataclasses import replace

import pytest

from benchframe.report.details import tail_table
from benchframe.report.mail import mail
from benchframe.report.table import FORMATS, fitted, latency_table, latex_escape, render, to_text
from benchframe.results.figures import rows_of
from benchframe.results.folder import Cell, CellState, LatencyRow, Process
from benchframe.results.manifest import CellEntry, WorkloadEntry
from benchframe.results.studies import HostFigures, HostWorkload

LATENCIES = (
    LatencyRow("lookup", "hit", 900, 21.0, 25.0, 40.0, 95.5, 12345.0),
    LatencyRow("lookup", "miss", 100, 61.0, 65.0, 90.0, 250.0, 22222.0),
)


def cell(
    strategy: str, speed: float, *, workload: str = "zipf:vmas=1000", state: str = "ok", mapping: bool = True
) -> Cell:
    """A cell of three rounds whose process means are speed, speed + 1 and speed - 1."""
    entry = WorkloadEntry(workload, workload, "", 0, "0" * 64, 1100, 1000, "rbtree")
    figures = {}
    for name, factor in {"lookup": 1, "fault": 4, "mapping": 100}.items():
        if mapping or name != "mapping":
            means = [factor * (speed + d) for d in (0, 1, -1)]
            figures[name] = [Process(r, (m, m), (m,), 8, 100, {"benchframe_round": r}) for r, m in enumerate(means)]
    counts = {"hit_rate": 0.875, "invalidations": 1234.0, "lookups": 1000.0, "hits": 875.0}
    failed = CellState(state, "find_vma(0x1000) gave NIL", event=17, round=0)
    good = CellState("ok", "", counts=counts, latencies=LATENCIES, timer_overhead_ns=7.5)
    return Cell(CellEntry("0" * 32, strategy, workload), entry, good if state == "ok" else failed, figures)


CELLS = [cell("rbtree", 50), cell("pmdcache", 25), cell("broken", 1, state="wrong")]


def test_latency_table_shows_means_spread_ratio_and_state() -> None:
    """The figures of three known processes appear as their mean, sd and paired ratio."""
    table = latency_table(CELLS)
    rows = {row[1]: dict(zip(table.heads, row, strict=True)) for row in table.rows}
    assert rows["rbtree"]["ns/lookup"] == "50.0 ± 1.00"
    assert rows["rbtree"]["hit rate"] == "87.5 %"
    assert rows["rbtree"]["n"] == "3"
    assert rows["pmdcache"]["ns/mapping op"] == "2,500 ± 100.0"
    record = next(r for r in table.records if r["strategy"] == "pmdcache")
    assert record["lookup_ratio"] == pytest.approx((25 / 50 * 26 / 51 * 24 / 49) ** (1 / 3))
    assert record["lookup_ratio_low"] < record["lookup_ratio"] < record["lookup_ratio_high"]  # type: ignore[operator]


def test_a_wrong_cell_has_no_figures() -> None:
    """A cell that answered wrongly shows its state and message, never a time, whatever its file holds."""
    table = latency_table(CELLS)
    row = next(row for row in table.rows if row[1] == "broken")
    assert "wrong" in row
    assert not any("±" in text for text in row)
    assert any("find_vma(0x1000) gave NIL (event 17)" in note for note in table.notes)
    record = next(r for r in table.records if r["strategy"] == "broken")
    assert record["lookup_mean"] is None


def test_without_a_sound_baseline_there_is_no_ratio() -> None:
    """If the baseline failed, the other strategies keep their times and lose their ratios."""
    table = latency_table([cell("rbtree", 50, state="crashed"), cell("pmdcache", 25)])
    row = dict(zip(table.heads, table.rows[1], strict=True))
    assert row["ns/lookup"] == "25.0 ± 1.00"
    assert row["ratio [95 %]"] == ""


def test_a_figure_that_no_cell_has_is_left_out() -> None:
    """A workload without mapping operations has no column for them."""
    table = latency_table([cell("rbtree", 50, mapping=False)])
    assert "ns/mapping op" not in table.heads
    assert "ns/fault" in table.heads


def test_too_few_samples_alone_is_no_reason_for_a_mark() -> None:
    """pyperf's instability hints mark a cell; its wish for more samples does not, since intervals show that."""
    steady, shaky = cell("rbtree", 50), cell("rbtree", 50)
    few = "Not enough samples to get a stable result (95% certainly of less than 1% variation)"
    steady = replace(steady, state=replace(steady.state, hints={"lookup": (few,)}))
    shaky = replace(shaky, state=replace(shaky.state, hints={"lookup": (few, "the maximum is 60% greater")}))
    assert [row.shown for row in rows_of([steady, shaky])] == ["ok", "ok!"]
    assert any(note.startswith("!") for note in latency_table([shaky]).notes)
    assert latency_table([steady], ["stopped early"]).notes[-1] == "stopped early"


def test_a_figure_lost_in_noise_is_said() -> None:
    """A figure that some processes could not give is shown from the others, and the table says so."""
    some = cell("pmdcache", 25)
    some = replace(some, figures={**some.figures, "lookup": some.figures["lookup"][1:]})
    table = latency_table([cell("rbtree", 50), some])
    assert "pmdcache on zipf:vmas=1000: ns/lookup is hidden by noise in 1 of 3 processes." in table.notes
    assert next(r for r in table.records if r["strategy"] == "pmdcache")["lookup_n"] == 2


def test_the_running_kernel_is_the_last_row_of_its_workload() -> None:
    """It has faults and calls, no lookup and no ratio; the sentence gives the lookup's share of a fault, both spreads,
    and which strategy saves most. A workload that it did not perform has no such row."""
    host = HostFigures("6.18", (HostWorkload("a", "rbtree", (990.0, 1000.0, 1010.0), (), 7, 0, "cut short"),))
    cells = [cell("rbtree", 50, workload="a"), cell("pmdcache", 25, workload="a"), cell("rbtree", 50, workload="b")]
    table = latency_table(cells, host=host)
    assert [row[:2] for row in table.rows][2] == ("a", "this kernel (6.18)")
    row = dict(zip(table.heads, table.rows[2], strict=True))
    assert (row["ns/lookup"], row["ns/fault"], row["ns/mapping op"], row["n"]) == ("", "1,000 ± 10.0", "", "3")
    assert len(table.rows) == 4 == len(table.records)
    assert {key: table.records[2][key] for key in ("strategy", "state", "fault_mean", "lookup_mean")} == {
        "strategy": "this kernel (6.18)", "state": "host", "fault_mean": 1000.0, "lookup_mean": None
    }  # fmt: skip
    said = next(note for note in table.notes if note.startswith("a: a lookup is"))
    whole = "of a page fault of 1,000 ± 10.0 ns on this kernel (n = 3): the best strategy can save 5 % ["
    assert said.startswith(f"a: a lookup is 50.0 ± 1.00 ns (rbtree in the model, n = 3) {whole}")
    assert said.endswith("Of the strategies here, pmdcache saves most: 25.0 ns, 2.5 %.")
    cells[0] = replace(cells[0], figures={**cells[0].figures, "cold": cells[0].figures["fault"]})
    said = next(note for note in latency_table(cells, host=host).notes if note.startswith("a: a lookup is"))
    assert said.endswith("In colder caches (ns/cold lookup) it is 200.0 ± 4.00 ns, 20 % of a fault.")
    assert "this kernel (6.18) performed a part of a: cut short." in table.notes
    assert latency_table(cells[2:], host=host) == latency_table(cells[2:])


def test_tails_split_by_hit_and_miss() -> None:
    """The second table has the quantiles of each outcome, and the mean where there is a histogram; it states the
    timer's overhead."""
    table = tail_table(CELLS)
    assert [row[3] for row in table.rows] == ["hit", "miss", "hit", "miss"]
    assert table.rows[0][5:] == ("", "21.0", "25.0", "40.0", "95.5", "12,345")
    assert any("7.5" in note for note in table.notes)
    found = {"histograms": {"mapping": ((32.0, 3), (320.0, 1))}}
    calls = LatencyRow("mapping", "all", 4, 33.0, 330.0, 330.0, 330.0, 330.0)
    (row,) = tail_table([replace(CELLS[0], state=CellState("ok", latencies=(calls,), threads=found))]).records
    assert row["mean"] == pytest.approx((3 * 33 + 330) / 4), "each operation in the middle of its bucket"


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_every_cell(form: str) -> None:
    """No format loses a strategy, and an empty run renders too."""
    text = render(latency_table(CELLS), form)
    assert all(name in text for name in ("rbtree", "pmdcache", "broken"))
    assert render(latency_table([]), form)


def test_mail_fits_in_72_ascii_columns() -> None:
    """The mail form keeps to 72 columns of ASCII even with long and foreign names."""
    text = mail([*CELLS, cell("a_very_long_strategy_name_indeed", 123456.7), cell("x", 9, workload="zipf-é" * 20)])
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 72
    assert "0.50" in text
    assert "wrong: find_vma" in text


def test_csv_reads_back_at_full_precision() -> None:
    """CSV holds the numbers themselves; a name that looks like a formula is defused."""
    rows = list(csv.DictReader(io.StringIO(render(latency_table([*CELLS, cell("=cmd()", 3)]), "csv"))))
    assert float(rows[0]["lookup_mean"]) == 50.0
    assert rows[2]["lookup_mean"] == ""
    assert rows[3]["strategy"] == "'=cmd()"


def test_latex_and_markdown_escape_everything() -> None:
    """Names made of special characters stay text."""
    evil = cell("rbtree", 5, workload=r"a&b_c%d#e$f{g}~^\|h<i>`j`")
    latex = render(latency_table([evil]), "latex")
    assert r"a\&b\_c\%d\#e\$f\{g\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textbar{}h\textless{}i" in latex
    assert r"$\pm$" in latex
    markdown = render(latency_table([evil]), "markdown")
    assert r"\|h\<i\>\`j\`" in markdown
    assert latex_escape("±1 %") == r"$\pm$1 \%"


def test_latex_rows_begin_with_no_bracket() -> None:
    """After the end of a row LaTeX takes a bracket for a distance: braces keep it text. What the usual fonts lack, and
    marks that turn the direction of text around, become question marks; notes stay comments."""
    rows = [cell("rbtree", 5, workload="[2cm]"), cell("b", 4, workload="[2cm]")]
    text = render(latency_table(rows, ["one\nline \u202eabc", "two\r\\input{x}"]), "latex")
    assert r"{[}2cm{]}" in text
    assert "[" not in text.replace("{[}", "")
    assert latex_escape("a\u202eb\u4e2d\u00e9\x07c") == "a?b?\u00e9?c"
    assert [line for line in text.splitlines() if "input" in line] == [r"% two?\input{x}"]
    assert all(line.startswith("%") for line in text.splitlines() if "line ?abc" in line)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "\uff1d1", "|calc"])
def test_no_text_of_a_csv_begins_a_formula(name: str) -> None:
    """Signs that a spreadsheet takes for a formula get an apostrophe, behind white space and in their wide form too."""
    (row,) = csv.DictReader(io.StringIO(render(latency_table([cell("rbtree", 5, workload=name)]), "csv")))
    assert row["workload"] == "'" + name


@pytest.mark.parametrize(("factor", "shown"), [(177.3, "~177"), (12345.0, "~>999"), (0.0123, "~.012"), (1e-5, "~tiny")])
def test_an_undecided_ratio_keeps_its_mark(factor: float, shown: str) -> None:
    """However large or small a ratio is, the mail says that it is undecided, and no table calls it 0.00."""
    base = cell("rbtree", 50)
    wild = [replace(p, values=(p.values[0] * factor ** (2 * p.round - 1),)) for p in base.figures["lookup"]]
    other = replace(cell("b", 25), figures={"lookup": wild})
    line = next(line for line in mail([base, other]).splitlines() if line.startswith("b "))
    assert shown in line.split()
    ratio = latency_table([base, other]).rows[1][3]
    assert ratio.endswith("undecided")
    assert not ratio.startswith("0.00 ")


def test_a_baseline_alone_has_no_column_of_ratios() -> None:
    """Where nothing is compared no head promises a ratio."""
    head = mail([cell("rbtree", 50)]).splitlines()[1]
    assert head.split() == ["ns/lookup", "ns/fault", "ns/map", "op", "hit"]


def test_a_spread_is_never_shown_as_none() -> None:
    """A standard deviation below the last place of the mean keeps a digit: +-0.0 would say that there is none."""
    steady = cell("rbtree", 50)
    close = [replace(p, values=(50 + 0.02 * p.round,)) for p in steady.figures["lookup"]]
    assert "50.0+-0.02" in mail([replace(steady, figures={"lookup": close})])


def test_a_cache_that_never_hits_has_a_hit_rate() -> None:
    """Of a strategy with a cache 0 % is a result; of one without it there is no hit rate, in a CSV neither."""
    none = {"hit_rate": 0.0, "invalidations": 0.0, "lookups": 1000.0, "hits": 0.0}
    plain = [cell("rbtree", 50, workload=w) for w in ("a", "b")]
    plain = [replace(c, state=replace(c.state, counts=none)) for c in plain]
    missing = cell("pmdcache", 25, workload="b")
    missing = replace(missing, state=replace(missing.state, counts=none))
    table = latency_table([plain[0], cell("pmdcache", 25, workload="a"), plain[1], missing])
    shown = table.heads.index("hit rate")
    assert [row[shown] for row in table.rows] == ["", "87.5 %", "", "0.0 %"]
    assert [record["hit_rate"] for record in table.records] == [None, 0.875, None, 0.0]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_table_fits_a_terminal_by_leaving_columns_out(width: int) -> None:
    """Any width from 60 on: same rows, intervals stay, columns go in one order, and the first note names those that are
    gone. Notes are wrapped; a terminal that is wide enough loses nothing."""
    whole = latency_table([cell("rbtree", 50), cell("pmdcache_rcu", 25)])
    lines = to_text(whole, width).splitlines()
    body, notes = lines[: lines.index("")], " ".join(lines[lines.index("") :])
    assert max(map(len, body)) <= width
    assert len(body) == 2 + len(whole.rows)
    assert "0.50 [0.48, 0.53] faster" in body[-1]
    left_out = set(whole.heads) - set(fitted(whole, width).heads)
    order = ["invalidations", "state", "n", "ns/mapping op", "ns/fault", "hit rate", "ns/lookup"]
    assert left_out == set(order[: len(left_out)])
    assert all(head in notes for head in left_out)
    assert bool(left_out) == (f"Left out, to fit {width} columns" in notes) == (width < 160)
    assert all(len(line) <= width or " " not in line for line in lines)


def test_a_failure_keeps_its_column() -> None:
    """The state is left out of a narrow table only where every cell is ok."""
    assert "wrong" in to_text(latency_table(CELLS), 80)


def test_tables_without_an_order_lose_the_last_columns_first() -> None:
    """Labels and the first column of numbers stay, however narrow the terminal is."""
    heads = tail_table(CELLS).heads
    assert fitted(tail_table(CELLS), 90).heads == heads[:-2]
    assert max(map(len, to_text(tail_table(CELLS), 90).partition("\n\n")[0].splitlines())) in range(80, 91)
    assert fitted(tail_table(CELLS), 1).heads == heads[:5]


def test_colours_change_no_column() -> None:
    """Faster is green, slower red, and without its escapes the text is the same."""
    table = latency_table([cell("rbtree", 50), cell("pmdcache", 25), cell("btree", 90)])
    text = to_text(table, colour=True)
    assert "\x1b[32mfaster\x1b[0m" in text
    assert "\x1b[31mslower\x1b[0m" in text
    assert re.sub(r"\x1b\[\d+m", "", text) == to_text(table)
