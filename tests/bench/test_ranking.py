"""Claims about `bench/ranking.py` and the study of its fresh runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from bench.ranking import OrderedRun, interval, lost, read_compared, tau
from stopgrad.method import extent
from stopgrad.studies import Choices, read_study
from stopgrad.studies.plan import arm_configs

ONE = np.array([1.0, 2.0, 2.0, 4.0, 5.0, 6.0])
OTHER = np.array([2.0, 1.0, 3.0, 3.0, 6.0, 5.0])
ALL = np.ones((6, 6), dtype=bool)


def test_tau_over_all_pairs_is_scipys() -> None:
    assert tau(ONE, OTHER, pairs=ALL) == pytest.approx(kendalltau(ONE, OTHER).statistic)


def test_tau_counts_the_pairs_of_one_group_alone() -> None:
    """Of (1, 2), (3, 3), (5, 6) and (2, 1), (3, 3), (6, 5): one tie, two reversed pairs."""
    group = np.array([0, 0, 1, 1, 2, 2])
    one, other = np.array([1.0, 2, 3, 3, 5, 6]), np.array([2.0, 1, 3, 3, 6, 5])
    assert tau(one, other, pairs=group[:, None] == group) == -1
    assert tau(one, other, pairs=ALL) == pytest.approx((12 - 2) / 14)


def test_a_run_that_counts_twice_is_two_equal_runs() -> None:
    weights = np.array([1.0, 2, 1, 1, 0, 1])
    twice = [0, 1, 1, 2, 3, 5]
    wanted = kendalltau(ONE[twice], OTHER[twice]).statistic
    assert tau(ONE, OTHER, pairs=ALL, weights=weights) == pytest.approx(wanted)


def test_the_interval_of_runs_in_perfect_order_is_one() -> None:
    assert interval(ONE[3:], ONE[3:], pairs=ALL[3:, 3:], arms=["a", "b", "c"]) == (1, 1)


def test_every_arm_of_the_fresh_study_has_the_same_n() -> None:
    source = read_study(str(Path(__file__).parents[2] / "bench" / "ranking.yaml"))
    for epochs in (4, 6, 8, 16):
        configs = arm_configs(source, Choices("miniature", {"epochs": epochs}, (0,)))
        assert len(configs) == 12
        folds = [extent(config, images=40_000).folds for config in configs.values()]
        assert np.ptp(folds) < 0.001 * folds[0]


def test_lines_of_compare_are_runs_with_their_measures(tmp_path: Path) -> None:
    found = {"measures": {"rankme": 2.0}, "accuracies": {"knn_accuracy": 0.5}}
    row = {"kind": "run", "run": "a", "seed": 3, "epoch": 8, **found}
    lines = [row, {"kind": "note", "note": "n"}]
    path = tmp_path / "compare.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "studies").mkdir()
    slots = {"slots": [{"run": "a", "arm": "low"}]}
    (tmp_path / "studies" / "ranking.json").write_text(json.dumps(slots))
    [run] = read_compared(path)
    values, accuracies = found.values()
    assert (run.arm, run.seed, run.values) == ("low", 3, values | {"epoch": 8})
    assert run.accuracies == accuracies


def test_what_is_lost_is_taken_in_each_seed() -> None:
    """By hand: seed 0 loses .6 - .5; in seed 1 two runs are first, (.7 - .7 + .7 - .3) / 2."""
    table = [(0, 1.0, 0.6), (0, 2.0, 0.5), (1, 9.0, 0.7), (1, 9.0, 0.3), (1, 3.0, 0.4)]
    runs = [OrderedRun("s", "a", seed, "", {"m": m}, {"knn": knn}) for seed, m, knn in table]
    assert lost(runs, "m", "knn") == pytest.approx((0.1 + 0.2) / 2)
