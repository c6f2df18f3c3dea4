"""Records, metrics and images -> figures: an Altair chart or a PIL image each, pure functions.

In: rows of `metrics.jsonl`, `Record`s, panels of uint8 images. Out: charts in one style that is
safe for colour-blind eyes and turns dark on a dark page (`inline_svg`). No torch; Altair and Pillow
are imported when a figure is drawn.

    style         colours and shapes by role, and a chart as SVG
    accuracy      records -> bars beside the baselines, and the accuracy of each class
    curves        metrics -> loss, kNN and measures of collapse over the epochs
    spectra       metrics -> how the directions of z fill, and the predictor along each
    scores        results of a study -> means with their spread, and the marks that show them
    arms          scores -> charts arm by arm, over the share of the labels, against a knob
    seeds         curves of a study's runs -> the mean over seeds with its band
    architecture  a config -> the drawing of the method
    panels        images with what is known of them, as a caller hands them over
    grids         panels -> one image of views, or of neighbours
    maps          features in the plane -> a map
    confusion     counts of what each class is taken for -> a matrix
"""
