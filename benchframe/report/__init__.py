"""A run as a report: one self-contained page, Markdown, a table for a mail, CSV, LaTeX, and its charts as pictures."""

from benchframe.report.write import FORMS, write_report

__all__ = ["FORMS", "write_report"]
