"""Runs and studies -> tables, figures, one self-contained page, and a poster.

In: run directories and study directories. Out: an HTML file that asks no network for anything, a
PDF, figures as files, and tables as text. No torch, except in `examples`. Reporting on a run loads
no file named `study_*` and nothing of the room `studies`.

    table         one table, shown as Markdown, HTML, on a terminal, as CSV and in print
    style         the one style of all charts, and a chart as SVG
    curves        metrics -> loss, kNN, measures of collapse and spectra over the epochs
    panels        images with what is known of them, and their charts: map, confusion matrix
    evidence      what a report says of a run or a study, read once and typed
    examples      a run and its data -> panels, chosen by rule; the only part with torch
    facts         a run's tables, protocols, finding, facts and commands
    accuracy      records -> bars with the baselines, and the accuracy of each class
    charts        a run's figures, each with its caption
    gallery       images as data URIs, and the sections of a page that show them
    page          the page: what it shows of a run, templates, content policy
    study_tables  a study's tables, and the study as Markdown, CSV or JSON
    arms          a study's scores and their charts: by arm, over the labels, against a knob
    seeds         curves of a study's runs -> the mean over seeds with its band
    study_charts  a study's figures, each with its caption
    study_page    what the page shows of a study
    poster        one sheet of A1, set by Typst
    files         each figure as SVG and PNG, images in grids
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
