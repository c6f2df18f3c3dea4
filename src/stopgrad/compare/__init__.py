"""Runs beside each other without a label: who is best, and whether labels would say the same.

In: runs and one data set. Out: `Comparison`: each run's label-free measures, all taken from the
same views of the same images, the ranks that follow, and how far each ranking agrees with kNN and
the linear probe (Kendall's tau), where those are known. Nothing is written into a run.
"""

from stopgrad.compare.compare import Agreement, Comparison, Row, compare, same_data
from stopgrad.compare.measure import LABEL_FREE, LabelFree, LayerName, measure_run
from stopgrad.compare.scores import ACCURACIES, Accuracies, accuracies

__all__ = [
    "ACCURACIES",
    "LABEL_FREE",
    "Accuracies",
    "Agreement",
    "Comparison",
    "LabelFree",
    "LayerName",
    "Row",
    "accuracies",
    "compare",
    "measure_run",
    "same_data",
]
