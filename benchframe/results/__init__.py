"""Runs on disk: planned, carried out, continued after an interruption, and read back with validation."""

from benchframe.errors import ResultsError
from benchframe.results.folder import Cell, RunFolder, find_run, list_runs

__all__ = ["Cell", "ResultsError", "RunFolder", "find_run", "list_runs"]
