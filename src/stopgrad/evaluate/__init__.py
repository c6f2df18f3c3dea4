"""One run -> records; the only place that knows all evaluators.

In: a run directory and its data set. Out: one `Record` per subject (the encoder, the same encoder
untrained, raw pixels), share of labels and evaluator, each with all that defines it; and that of
a training with labels.
"""

from stopgrad.evaluate.frozen import EVERYTHING, Selection, evaluate
from stopgrad.evaluate.measured import newest_measures
from stopgrad.evaluate.run import (
    EvaluationSplit,
    TrainedRun,
    check_same_data,
    check_shares,
    evaluation_split,
    keep_label_draws,
    load_run,
)
from stopgrad.evaluate.trained import newest_record, recorded, trained_record

__all__ = [
    "EVERYTHING",
    "EvaluationSplit",
    "Selection",
    "TrainedRun",
    "check_same_data",
    "check_shares",
    "evaluate",
    "evaluation_split",
    "keep_label_draws",
    "load_run",
    "newest_measures",
    "newest_record",
    "recorded",
    "trained_record",
]
