"""One run -> one self-contained page: results, curves, collapse, neighbours, every knob.

In: a run directory, and panels of pictures that the caller prepared where torch is at home. Out:
an HTML file that asks no network for anything. No torch.
"""

from stopgrad.report.evidence import Evidence, read_evidence
from stopgrad.report.page import render, write_report
from stopgrad.report.results import finding

__all__ = ["Evidence", "finding", "read_evidence", "render", "write_report"]
