"""Records, metrics and images -> figures: an Altair chart or a PIL image each, pure functions.

In: rows of `metrics.jsonl`, `Record`s, panels of uint8 pictures. Out: charts in one style that
is safe for colour-blind eyes and turns dark on a dark page (`inline_svg`). No torch; Altair and
Pillow are imported when a figure is drawn.
"""

from stopgrad.figures.accuracy import accuracy_chart, per_class_chart
from stopgrad.figures.confusion import confusion_chart
from stopgrad.figures.curves import knn_chart, loss_chart
from stopgrad.figures.grids import neighbor_grid, view_grid
from stopgrad.figures.maps import map_chart
from stopgrad.figures.measures import measure_chart, measures_chart
from stopgrad.figures.palette import css_variables
from stopgrad.figures.panels import (
    ConfusionPanel,
    Exploration,
    MapPanel,
    NeighborPanel,
    ViewPanel,
    view_panel,
)
from stopgrad.figures.svg import inline_svg

__all__ = [
    "ConfusionPanel",
    "Exploration",
    "MapPanel",
    "NeighborPanel",
    "ViewPanel",
    "accuracy_chart",
    "confusion_chart",
    "css_variables",
    "inline_svg",
    "knn_chart",
    "loss_chart",
    "map_chart",
    "measure_chart",
    "measures_chart",
    "neighbor_grid",
    "per_class_chart",
    "view_grid",
    "view_panel",
]
