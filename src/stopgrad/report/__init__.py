"""Runs and studies -> tables, figures, one self-contained page, and a poster.

In: run directories and study directories, and panels of images that the caller prepared where
torch is at home. Out: an HTML file that asks no network for anything, a PDF, figures as files, and
tables as text. No torch, but in `examples`.

    evidence      what a report says of a run or a study, read once and typed
    table         one table, shown as Markdown, HTML, on a terminal, as CSV and in print
    run_tables    a run's tables: scores, epochs, measures, knobs; protocols and the finding
    study_tables  a study's tables: scores, components, findings, runs
    study_text    a study as Markdown, CSV or JSON
    facts         tiles, facts, the commands that repeat a run
    figures/      charts by Altair and Vega, drawings by SVG templates
    charts        a run's figures, each with its caption
    study_charts  a study's figures, each with its caption
    examples/     images with neighbours and views, chosen by rule; the only part with torch
    thumbnails    images as data URIs
    gallery       the sections of a page that show images
    run_page      what the page shows of a run
    study_page    what the page shows of a study
    page          the page: templates, content policy
    poster        one sheet of A1, set by Typst
    files         each figure as SVG and PNG
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
