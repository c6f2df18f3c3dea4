"""One run -> pictures to look at: views, nearest neighbours chosen by rule, a map of the features.

The torch side of the figures: what comes out are the panels of `figures`, plain arrays.
"""

from stopgrad.examples.choice import choose_examples, choose_gallery
from stopgrad.examples.explore import explore
from stopgrad.examples.nearest import Nearest, nearest
from stopgrad.examples.neighbors import neighbor_examples, neighbors_of
from stopgrad.examples.plane import pacmap_plane, principal_plane
from stopgrad.examples.views import view_examples

__all__ = [
    "Nearest",
    "choose_examples",
    "choose_gallery",
    "explore",
    "nearest",
    "neighbor_examples",
    "neighbors_of",
    "pacmap_plane",
    "principal_plane",
    "view_examples",
]
