"""Runs and studies -> one self-contained page, a poster, and the figures as files.

In: run directories and study directories, and panels of pictures that the caller prepared where
torch is at home. Out: an HTML file that asks no network for anything. No torch.
"""

from stopgrad.report.evidence import Evidence, read_evidence
from stopgrad.report.files import write_figures
from stopgrad.report.page import render, write_page, write_report
from stopgrad.report.poster import write_poster
from stopgrad.report.results import finding
from stopgrad.report.study import ShownRun, StudyEvidence, read_studies

__all__ = [
    "Evidence",
    "ShownRun",
    "StudyEvidence",
    "finding",
    "read_evidence",
    "read_studies",
    "render",
    "write_figures",
    "write_page",
    "write_poster",
    "write_report",
]
