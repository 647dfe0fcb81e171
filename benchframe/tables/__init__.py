"""The tables of a run: built from its cells, rendered as text, for a mail, as Markdown, CSV or LaTeX."""

from benchframe.tables.build import Table, latency_table
from benchframe.tables.cost import cost_table
from benchframe.tables.mail import mail
from benchframe.tables.render import FORMATS, render
from benchframe.tables.scaling import scaling_table
from benchframe.tables.tails import tail_table

__all__ = ["FORMATS", "Table", "cost_table", "latency_table", "mail", "render", "scaling_table", "tail_table"]
