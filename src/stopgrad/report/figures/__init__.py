"""Records, metrics and images -> figures: an Altair chart or a PIL image each, pure functions.

In: rows of `metrics.jsonl`, `Record`s, panels of uint8 pictures. Out: charts in one style that
is safe for colour-blind eyes and turns dark on a dark page (`inline_svg`). No torch; Altair and
Pillow are imported when a figure is drawn.
"""
