"""Runs and studies -> tables, figures, one self-contained page, and a poster.

In: run directories and study directories. Out: an HTML file that asks no network for anything, a
PDF, figures as files, and tables as text. No torch, except in `examples`. The page of a run loads
no file named `study_*` and nothing of the room `studies`.

    table         one table, shown as Markdown, HTML, on a terminal, as CSV and in print
    style         the one style of all charts: colours, marks, figures, a chart as SVG
    panels        images to be shown: with views, with neighbours, on a map
    evidence      the data of a report on a run or a study, read once and typed
    examples      a run and its data -> panels, chosen by rule; the only part with torch
    facts         a run's tables, protocols, finding and facts
    commands      the commands that repeat a run
    curves        figures over the epochs: loss, kNN, measures of collapse and spectra
    accuracy      bars with the baselines, the accuracy of each class, and the network
    maps          the map of the features and the confusion matrix
    over_time     several arms or runs over the epochs, each by its name
    overview      the overview of several runs or studies: one table, runs in one figure
    gallery       images as data URIs, and the sections of a page that show them
    page          the page: what it shows of a run, templates, content policy
    study_tables  a study's tables, and the lines that go with them
    study_text    a study as Markdown, CSV or JSON
    arms          a study's scores and their charts: by arm, over the labels, against a knob
    study_scores  a study's key figure, the published one beside it, and the other numbers
    study_charts  curves of a study's arms, each the mean over seeds
    study_page    what the page shows of a study
    poster        one sheet of A1, set by Typst
    files         each figure as SVG and PNG, images in grids
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
