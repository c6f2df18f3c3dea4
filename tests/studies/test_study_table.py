"""Claims about a study's table: from records that were made by hand."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from stopgrad.config import config_to_dict
from stopgrad.errors import DataError
from stopgrad.evaluation import MEASURES
from stopgrad.evaluation.format import mean_text
from stopgrad.method.collapse import Measures
from stopgrad.report import Table, study_parts, study_table
from stopgrad.report.study_tables import published_scale
from stopgrad.studies import (
    PreparedStudy,
    Results,
    StudyDirectory,
    answer_findings,
    load_results,
    published_extents,
    read_factorial,
    sentence,
    study_overview,
)
from stopgrad.studies.results import best_arm
from tests.studies.instant import InstantExecutor, conduct, prepare, record, run_of, train

RESULTS = Path(__file__).parents[2] / "results"
STUDY: dict[str, Any] = {
    "question": "Which is best?",
    "baseline": "plain",
    "settings": {"validation": 0.2},
    "arms": {"plain": {}, "good": {"epochs": 5}, "bad": {"epochs": 6}},
    "protocol": {
        "split": "validation",
        "labels": [0.1, 1],
        "metrics": ["knn_accuracy", "effective_rank"],
        "beside": ["chance", "untrained"],
    },
    "findings": [
        {"says": "good beats plain", "higher": "good", "than": "plain"},
        {"says": "plain beats good", "higher": "plain", "than": "good"},
        {"says": "plain within 7 points of good", "higher": "plain", "than": "good", "margin": 7},
        {"says": "bad collapses", "collapses": ["bad"], "survives": ["plain", "good"]},
    ],
    "published": {
        "source": "somebody",
        "seeds": 5,
        "values": {"good": {"knn_accuracy": [[70.5, 0.25], [81.0, 1.5]]}},
    },
}
VALUES = {
    "plain": (0.57, 0.58, 0.59),
    "good": (0.63, 0.64, 0.66),
    "bad": (0.10, 0.10, 0.10),
}


def _fill(prepared: PreparedStudy, values: dict[str, tuple[float, ...]] = VALUES) -> Results:
    """Scores the runs of each arm, and the untrained encoder of the baseline's."""
    for arm, numbers in values.items():
        for seed, value in enumerate(numbers):
            folder = prepared.directory.folder(run_of(prepared, arm, seed))
            train(folder)
            verdict = "complete collapse" if arm == "bad" else "healthy"
            for labels in (0.1, 1.0):
                beside = {"value": value, "labels": labels, "split": "validation"}
                record(folder, "knn_accuracy", of="encoder", verdict=verdict, **beside)
                if arm == "plain":
                    record(folder, "knn_accuracy", of="untrained", **(beside | {"value": 0.3}))
            record(folder, "effective_rank", of="encoder", split="train", value=12.5)
    return _results(prepared)


def _results(prepared: PreparedStudy) -> Results:
    return load_results(prepared.directory, prepared.directory.read("mine"))


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedStudy:
    """Three arms and three seeds, nothing scored."""
    return prepare(tmp_path / "s", STUDY, seeds=(0, 1, 2))


def test_measures_are_those_of_collapse() -> None:
    assert Measures._fields == MEASURES


def test_ours_stands_beside_the_published_with_spread_count_and_marks(
    prepared: PreparedStudy,
) -> None:
    _fill(prepared)
    table = study_table(prepared.directory, "mine", form="markdown")
    # .63, .64, .66: mean 64.33, std sqrt(7 / 3) = 1.53; .57, .58, .59: std 1.
    ours = "**64.33 ± 1.53 (3)**"
    assert f"| good | {ours} | 70.50 ± 0.25 | {ours} | 81.00 ± 1.50 |" in table
    assert "| plain | 58.00 ± 1.00 (3) |  | 58.00 ± 1.00 (3) |  |" in table
    assert "| bad | 10.00 ± 0.00 (3), 3 collapsed |  |" in table
    assert "| untrained encoder | 30.00 ± 0.00 (3) |  |" in table
    assert "| chance | 10.00 |  | 10.00 |  |" in table
    assert "| plain | 12.5 ± 0.0 (3) |  |" in table
    assert "Published: somebody, 5 seeds." in table
    assert "(100 images)" in table
    assert "Incomplete" not in table


def test_the_finding_is_a_sentence_made_from_the_numbers(prepared: PreparedStudy) -> None:
    text = sentence(_fill(prepared))
    assert text == (
        "By kNN with all labels, 'good' is best (64.33 ± 1.53 %, n = 3); every other arm that has "
        "a number lies below it; 'bad': 3 of 3 collapsed (one-sided t-test at 5 %, paired by "
        "seed, Holm)."
    )
    text = sentence(_fill(prepared, VALUES | {"plain": (0.62, 0.64, 0.65)}))
    assert "'plain' is not separated from it" in text


def test_arms_that_are_all_level_are_counted_and_not_listed() -> None:
    directory = StudyDirectory(RESULTS / "2026-12-01-ranking-flowers")
    text = sentence(load_results(directory, directory.read_all()[0]))
    assert "none of the other 11 arms is separated from it" in text
    assert "crop 0.8" not in text


def test_published_findings_are_tested_together(prepared: PreparedStudy) -> None:
    found = answer_findings(_fill(prepared))
    answers = [(answered.finding.says, answered.answer) for answered in found]
    assert answers == [
        ("good beats plain", "shows"),
        ("plain beats good", "the opposite shows"),
        ("plain within 7 points of good", "not separable with these seeds"),
        ("bad collapses", "shows"),
    ]
    good, plain = VALUES["good"], VALUES["plain"]
    test = scipy.stats.ttest_rel(good, plain, alternative="greater")
    shifted = [value - 0.07 for value in good]
    within = scipy.stats.ttest_rel(plain, shifted, alternative="greater")
    beside = scipy.stats.ttest_ind(good, plain, equal_var=False, alternative="greater")
    shows, _, missed, _ = (answered.tested for answered in found)
    assert shows is not None
    assert missed is not None
    assert (shows.paired.p, shows.welch.p) == pytest.approx((test.pvalue, beside.pvalue))
    assert missed.paired.p == pytest.approx(within.pvalue)
    # Holm over the three comparisons: the smallest times 3.
    assert (shows.p, shows.p_of_welch) == pytest.approx((3 * test.pvalue, 3 * beside.pvalue))
    assert "+6.33 points" in found[0].why
    assert "n = 3 pairs; unpaired (Welch) p = " in found[0].why
    assert "could see" not in found[0].why
    # Differences by seed of the two arms that did not collapse: .06, .06, .07. Their variance is
    # 1 / 3 squared points; 3 pairs see 2.297 standard deviations of it.
    seen = 2.297 * (1 / 3) ** 0.5
    assert 100 * missed.visible == pytest.approx(seen, rel=1e-3)
    assert f"; 3 pairs could see {seen:.2f} points (uncorrected)" in found[2].why
    assert found[2].why.startswith("-6.33 points from 'good' to 'plain', p = ")
    assert "'bad': 3 of 3 collapsed" in found[3].why


def test_the_unpaired_mark_stands_beside_the_paired_one(prepared: PreparedStudy) -> None:
    """Seeds that differ more than arms do: pairs tell the arms apart, Welch's test does not."""
    _fill(prepared, {"plain": (0.50, 0.60, 0.70), "good": (0.52, 0.62, 0.73)})
    values = json.loads(study_table(prepared.directory, "mine", form="json"))
    marks = {
        c["arm"]: (c["mark"], c["mark_unpaired"])
        for c in values["cells"]
        if (c["metric"], c["labels"], c["of"]) == ("knn_accuracy", 1.0, "encoder")
    }
    assert marks == {
        "plain": ("below", "level"),
        "good": ("best", "best"),
        "bad": (None, None),
    }


def test_a_grid_of_knobs_is_read_as_a_factorial(tmp_path: Path) -> None:
    arms = {
        f"{alpha:g} {schedule}": {
            "optimizer.alpha_h": alpha,
            "optimizer.predictor_schedule": schedule,
        }
        for alpha in (1.0, 2.0)
        for schedule in ("constant", "cosine")
    }
    values = STUDY | {"arms": arms, "baseline": "1 constant", "findings": []}
    values = {key: value for key, value in values.items() if key != "published"}
    prepared = prepare(tmp_path / "s", values, seeds=(0, 1))
    scores = {"1 constant": (0.5, 0.6), "1 cosine": (0.51, 0.6)}
    scores |= {"2 constant": (0.53, 0.62), "2 cosine": (0.54, 0.64)}
    effects = read_factorial(_fill(prepared, scores))
    found = {(each.metric, each.knob): each for each in effects}
    alpha = found["knn_accuracy", "optimizer.alpha_h"]
    high, low = (0.53, 0.62, 0.54, 0.64), (0.5, 0.6, 0.51, 0.6)
    assert alpha.test.two_sided == pytest.approx(scipy.stats.ttest_rel(high, low).pvalue)
    assert (alpha.low, alpha.high, alpha.test.n) == (1.0, 2.0, 4)
    schedule = found["knn_accuracy", "optimizer.predictor_schedule"]
    assert schedule.test.difference == pytest.approx(0.01)
    assert alpha.p == pytest.approx(2 * alpha.test.two_sided)  # Holm over the two
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "| kNN | alpha_h 1 to 2 | +3.00 points | 4 |" in table


def test_a_factorial_names_knobs_by_what_the_runs_had(tmp_path: Path) -> None:
    arms = {
        "plain": {},
        "fast": {"optimizer.base_lr": {"times": 2}},
        "joint": {"batch_norm": "joint"},
        "both": {"optimizer.base_lr": {"times": 2}, "batch_norm": "joint"},
    }
    protocol = STUDY["protocol"] | {"labels": [0.1]}
    values = STUDY | {"arms": arms, "findings": [], "protocol": protocol}
    del values["published"]
    prepared = prepare(tmp_path / "s", values, seeds=(0, 1))
    _fill(prepared, {arm: (0.5, 0.6 + n / 50) for n, arm in enumerate(arms)})
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "base_lr 0.8 to 1.6" in table
    assert "batch_norm per-view to joint" in table
    assert "Read as a factorial, 10 % of the labels: " in table


def _far(prepared: PreparedStudy, *arms: str) -> None:
    """Two epochs of 20 steps of 32 images of each arm."""
    for arm in arms:
        run = run_of(prepared, arm, 0)
        done = {"epoch": 2, "views": 2 * 32 * 40, "labels": 1.0, "value": 0.5}
        config = config_to_dict(replace(prepared.plan.runs[run].config, epochs=2))
        place = prepared.directory.folder(run)
        record(place, "knn_accuracy", of="encoder", split="validation", config=config, **done)


def test_n_is_a_line_where_arms_agree_and_a_column_where_they_do_not(tmp_path: Path) -> None:
    arms = {"plain": {}, "good": {"optimizer.alpha_h": 2}, "bad": {"optimizer.weight_decay": 5e-3}}
    numbers = {arm: {"knn_accuracy": [[70.5, 0.25], [81.0, 1.5]]} for arm in ("good", "bad")}
    published = STUDY["published"] | {"source": "report", "values": numbers}
    values = STUDY | {"arms": arms, "findings": [], "published": published}
    prepared = prepare(tmp_path / "s", values, seeds=(0,))
    _far(prepared, "plain", "good")
    table = study_table(prepared.directory, "mine", form="markdown")
    # Peak rate .8 x 32 / 256 = .1 over 40 steps of a cosine: 5e-4 x .1 x 41 / 2 / .1 = .01025.
    assert "N = 0.01, 40 steps, 2 passes over each image; published: N = 9.4 to 93.6." in table
    assert "published N" not in table
    _far(prepared, "bad")
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "N = 0.01 to 0.1, by arm" in table
    bad = next(line for line in table.splitlines() if line.startswith("| bad | "))
    # The published: 800 epochs of 40,000 // 512 = 78 steps: 5e-3 x .06 x 62,401 / 2 / .1.
    assert bad.endswith("| 0.1 | 93.6 |")
    cells = list(csv.DictReader(io.StringIO(study_table(prepared.directory, "mine", form="csv"))))
    [row] = [
        c for c in cells if (c["arm"], c["metric"], c["labels"]) == ("bad", "knn_accuracy", "1.0")
    ]
    assert (row["steps"], float(row["decay_folds"])) == ("40", pytest.approx(0.1025))


def test_another_source_than_the_report_has_no_n_of_ours(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "s", STUDY, seeds=(0,))
    _far(prepared, "plain", "good", "bad")
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "N = 0.01, 40 steps, 2 passes over each image.\n" in table
    assert "published N" not in table


def test_a_study_that_the_published_preset_cannot_take_stands_beside_the_published_run(
    tmp_path: Path,
) -> None:
    """2,000 times 800 epochs are more than a run may have, 2,000 times those of `tiny` are not."""
    published = STUDY["published"] | {"source": "report"}
    values = STUDY | {"settings": {"validation": 0.2, "epochs": {"times": 2000}}}
    results = _results(prepare(tmp_path / "s", values | {"published": published}))
    assert published_extents(results) == {}
    told = published_scale(results).replace("\xa0", " ")
    assert told.startswith("ResNet-18, 800 epochs, 50,000 images, 5 seeds, N = 11.6, from ")


def test_arms_that_are_no_grid_have_no_factorial(prepared: PreparedStudy) -> None:
    assert read_factorial(_fill(prepared)) == []


def test_one_third_to_two_thirds_is_seen_in_the_committed_runs() -> None:
    """24 runs, paired by seed and schedule; SciPy over the numbers of their records."""
    directory = StudyDirectory(RESULTS / "2026-11-26-predictor-lr")
    results = load_results(directory, directory.read("predictor-lr"))
    effect = next(e for e in read_factorial(results) if e.metric == "knn_accuracy")
    scores = {
        row.place.arm: row.cell.values
        for row in results.rows
        if row.is_of_arm and row.place[1:] == ("knn_accuracy", 1.0)
    }
    high, low = (
        [*scores[f"{alpha} constant"], *scores[f"{alpha} cosine"]] for alpha in ("2/3", "1/3")
    )
    assert effect.test.two_sided == pytest.approx(scipy.stats.ttest_rel(high, low).pvalue)
    assert 100 * effect.test.difference == pytest.approx(1.48, abs=0.005)
    assert effect.test.two_sided == pytest.approx(0.012, abs=5e-4)
    assert effect.test.n == 6


def test_one_run_tells_nothing(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "s", STUDY, seeds=(0,))
    found = answer_findings(_fill(prepared, {arm: value[:1] for arm, value in VALUES.items()}))
    assert [answered.answer for answered in found] == ["cannot be told yet"] * 3 + ["shows"]
    assert "cannot be tested (fewer than two seeds in common)" in sentence(_results(prepared))


def test_where_each_metric_has_one_arm_the_findings_speak(tmp_path: Path) -> None:
    arms = {"ours": {}, "theirs": {"method": "supervised"}}
    pair = {
        "higher": {"arm": "ours", "metric": "knn_accuracy"},
        "than": {"arm": "theirs", "metric": "supervised_accuracy"},
    }
    values = {
        "question": "?",
        "baseline": "ours",
        "arms": arms,
        "protocol": {"split": "test", "metrics": ["knn_accuracy", "supervised_accuracy"]},
        "findings": [{"says": "ours beats theirs"} | pair],
    }
    prepared = prepare(tmp_path / "s", values, seeds=(0, 1, 2))
    assert sentence(_results(prepared)) == "No arm has a number yet."
    for seed in range(3):
        ours, theirs = (prepared.directory.folder(run_of(prepared, a, seed)) for a in arms)
        train(ours)
        record(ours, "knn_accuracy", of="encoder", split="test", value=0.5 + seed / 100)
        record(theirs, "supervised_accuracy", of="supervised", split="test", value=0.4)
    assert sentence(_results(prepared)) == (
        "Of 1 finding, 1 shows here: ours beats theirs (one-sided t-test at 5 %, paired by seed, "
        "Holm)."
    )


def test_a_dimensional_collapse_is_counted_by_its_name(prepared: PreparedStudy) -> None:
    _fill(prepared)
    folder = prepared.directory.folder(run_of(prepared, "good", 0))
    verdict = {"verdict": "dimensional collapse", "labels": 1.0}
    record(folder, "knn_accuracy", of="encoder", split="validation", value=0.63, **verdict)
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "64.33 ± 1.53 (3), 1 dimensional collapse" in table
    assert "; 'good': 1 of 3 collapsed (1 to a few dimensions); " in table


def test_half_a_study_says_what_is_missing_and_why(prepared: PreparedStudy) -> None:
    _fill(prepared, {"plain": (0.6, 0.61), "good": (0.63,)})
    executor = InstantExecutor()
    bad = run_of(prepared, "bad", 0)
    executor.fails = {bad: [4], run_of(prepared, "bad", 1): [-9] * 5}
    executor.slots = 1
    stopped = prepared.directory.folder(run_of(prepared, "bad", 2))
    stopped.run.mkdir()
    (stopped.run / "config.json").write_text("{}")
    (stopped.run / "status.json").write_text('{"state": "interrupted", "epoch": 3}')
    runs = [prepared.plan.runs[r] for r in (bad, run_of(prepared, "bad", 1))]
    some = prepared._replace(plan=prepared.plan._replace(runs={run.id: run for run in runs}))
    conduct(some, executor)
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "| plain | 60.50 ± 0.71 (2), 1 missing |" in table
    assert "| bad | 1 diverged, 1 failed, 1 missing |" in table
    assert "Incomplete, 6 of 9 runs:" in table
    assert "- bad, seed 0: diverged, exit code 4: something went wrong" in table
    assert "- bad, seed 1: failed, exit code -9: killed by signal 9" in table
    assert "- bad, seed 2: stopped at epoch 3" in table
    assert "- good, seed 1: not begun" in table
    found = study_overview(prepared.directory, prepared.directory.read("mine"))
    assert {arm.name: (arm.done, arm.runs, arm.failed) for arm in found.arms} == {
        "plain": (2, 3, 0),
        "good": (1, 3, 0),
        "bad": (0, 3, 2),
    }
    # 3 are done, 2 have failed, and one has made 3 of its 6 epochs.
    assert found.done == pytest.approx((3 + 2 + 0.9 * 3 / 6) / 9)


def test_where_one_arm_alone_has_a_number_it_is_told(prepared: PreparedStudy) -> None:
    results = _fill(prepared, {"plain": (0.57, 0.58, 0.59)})
    assert sentence(results) == (
        "By kNN with all labels, 'plain' reaches 58.00 ± 1.00 %, n = 3, and no other arm has a "
        "number to compare."
    )


def test_a_study_without_a_single_number_has_a_table(prepared: PreparedStudy) -> None:
    for form in ("markdown", "csv", "json"):
        assert study_table(prepared.directory, "mine", form=form)
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "| good | 3 missing | 70.50 ± 0.25 |" in table
    assert "No arm has a number yet." in table
    assert best_arm(_results(prepared)) is None


@pytest.mark.parametrize("file", ["run/records.jsonl", "attempts.jsonl", "run/costs.jsonl"])
@pytest.mark.parametrize(
    "contents", [b"\xff\n{}\n", b"[]\n[]\n", b'{"metric": 1}\n{"a": 1}\n', b""]
)
def test_damage_costs_one_run_and_is_named(
    prepared: PreparedStudy, file: str, contents: bytes
) -> None:
    _fill(prepared)
    path = prepared.directory.folder(run_of(prepared, "plain", 0)).path
    (path / file).write_bytes(contents)
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "| good | **64.33 ± 1.53 (3)** |" in table
    if contents or file == "run/records.jsonl":
        assert "| plain | 58.50 ± 0.71 (2), 1 " in table
        assert "- plain, seed 0: " in table


def test_a_terminal_is_shown_every_table_once_the_test_splits_too(tmp_path: Path) -> None:
    protocol = STUDY["protocol"] | {"metrics": ["knn_accuracy"], "final_test": True}
    prepared = prepare(tmp_path / "s", STUDY | {"protocol": protocol})
    conduct(prepared, InstantExecutor())
    parts = study_parts(prepared.directory, "mine")
    names = [part.name for part in parts if isinstance(part, Table)]
    assert names == ["scores", "final", "findings"]


def test_csv_and_json_hold_what_the_table_shows(prepared: PreparedStudy) -> None:
    _fill(prepared)
    rows = list(csv.DictReader(io.StringIO(study_table(prepared.directory, "mine", form="csv"))))
    [row] = [
        r for r in rows if (r["arm"], r["metric"], r["labels"]) == ("good", "knn_accuracy", "1.0")
    ]
    assert float(row["mean"]) == pytest.approx(1.93 / 3)
    assert (row["n"], row["mark"], row["published_mean"]) == ("3", "best", "81.0")
    half = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem(VALUES["good"])
    assert float(row["high_95"]) - float(row["mean"]) == pytest.approx(half)
    values = json.loads(study_table(prepared.directory, "mine", form="json"))
    [cell] = [c for c in values["cells"] if (c["arm"], c["labels"]) == ("good", 0.1)]
    assert cell["values"] == list(VALUES["good"])
    assert values["findings"][0]["answer"] == "shows"
    assert values["missing"] == []


def test_kNN_over_epochs_comes_with_its_spread(prepared: PreparedStudy) -> None:  # noqa: N802
    for seed, (first, last) in enumerate([(0.2, 0.4), (0.3, 0.6)]):
        run = prepared.directory.folder(run_of(prepared, "plain", seed)).run
        run.mkdir()
        rows = [
            {"kind": "step", "step": 1, "loss": -0.1},
            {"kind": "epoch", "epoch": 1, "step": 1, "knn": first},
            {"kind": "epoch", "epoch": 2, "step": 2, "knn": None},
            {"kind": "epoch", "epoch": 3, "step": 3, "knn": last},
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = json.loads(study_table(prepared.directory, "mine", form="json"))
    assert [(p["epoch"], p["mean"], p["n"]) for p in values["knn_over_epochs"]] == [
        (1, 0.25, 2),
        (3, 0.5, 2),
    ]
    found = study_overview(prepared.directory, prepared.directory.read("mine"))
    assert next(arm.knn for arm in found.arms if arm.name == "plain") == pytest.approx(0.5)


def test_what_a_study_cost_is_said_with_the_factor(prepared: PreparedStudy) -> None:
    _fill(prepared)
    folder = prepared.directory.folder(run_of(prepared, "plain", 0))
    row = {"wall_s": 3600.0, "joules": None, "source": "", "device": "cpu", "threads": 2}
    (folder.run / "costs.jsonl").write_text(json.dumps(row) + "\n")
    energy = {"kwh": 0.02, "co2_kg": 0.003, "source": "estimate", "watts": 20.0}
    energy["kg_co2_per_kwh"] = 0.15
    record(folder, "knn_accuracy", of="encoder", split="validation", value=0.6, energy=energy)
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "training of 1 of them about 0.02 kWh (estimate of 20 W, 0.15 kg CO2 per kWh)." in table


def test_trainings_with_labels_are_part_of_time_energy_and_work(prepared: PreparedStudy) -> None:
    folder = prepared.directory.folder(run_of(prepared, "plain", 0))
    train(folder)
    row = {"wall_s": 3600.0, "joules": None, "source": "", "device": "cpu", "threads": 1}
    tuned = folder.run / "finetune" / "share-0.1"
    tuned.mkdir(parents=True)
    for path in (folder.run, tuned):
        (path / "costs.jsonl").write_text(json.dumps(row) + "\n")
    record(folder, "knn_accuracy", of="encoder", split="validation", value=0.5, views=100, flops=7)
    record(
        folder,
        "finetune_accuracy",
        of="encoder",
        split="validation",
        labels=0.1,
        value=0.5,
        views=100,
        flops=7,
    )
    path = folder.run / "records.jsonl"
    head, tail = path.read_text().splitlines()
    tail = json.dumps(json.loads(tail) | {"protocol": {"views": 20, "flops": 3.0}})
    path.write_text(f"{head}\n{tail}\n")
    run = _results(prepared).runs[run_of(prepared, "plain", 0)]
    assert run.energy is not None
    assert run.energy.kwh == pytest.approx(2 * 0.01)  # two hours of 10 W
    assert (run.train_s, run.views, run.flops) == (7200.0, 120, 10.0)


def test_a_directory_without_studies_says_so(tmp_path: Path, prepared: PreparedStudy) -> None:
    with pytest.raises(DataError, match="holds no study"):
        StudyDirectory(tmp_path / "none").read_all()
    with pytest.raises(DataError, match="did you mean mine"):
        study_table(prepared.directory, "mien", form="csv")


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_damaged_study_file_is_one_error(prepared: PreparedStudy, cut: int) -> None:
    path = prepared.directory.path / "studies" / "mine.json"
    path.write_bytes(path.read_bytes()[:cut] if cut >= 0 else b'{"format": 2}')
    with pytest.raises(DataError, match="cannot be read"):
        study_table(prepared.directory, "mine", form="markdown")


def test_reading_a_study_takes_no_torch(prepared: PreparedStudy) -> None:
    code = (
        "import sys; from stopgrad.cli import main\n"
        f"main(['study', 'table', {str(prepared.directory.path)!r}])\n"
        f"main(['study', 'status', {str(prepared.directory.path)!r}])\n"
        "main(['study', 'list'])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"good, seed 1: not begun \(.*runs/[0-9a-f]{16}\)", done.stdout)
    assert "weight-decay" in done.stdout


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (283.04, 12.6, "283 ± 13"),
        (20.23, 0.533, "20.2 ± 0.5"),
        (1.0, 1.35e-14, "1.00 ± 0.00"),
        (0.0518, 0.00123, "0.0518 ± 0.0012"),
        (-4.67e-13, None, "0.0000"),
        (-0.25, 0.004, "-0.250 ± 0.004"),
        (0.0, 0.0, "0.00 ± 0.00"),
    ],
)
def test_a_measure_and_its_spread_have_the_same_decimals(
    mean: float, std: float | None, text: str
) -> None:
    assert mean_text(mean, std, "effective_rank") == text


def test_a_collapse_finding_waits_for_every_run(prepared: PreparedStudy) -> None:
    """One of three runs says nothing of the other two."""
    _fill(prepared, {"plain": (0.6, 0.61, 0.6), "good": (0.6, 0.6, 0.6), "bad": (0.1,)})
    answers = {a.finding.says: a for a in answer_findings(_results(prepared))}
    collapse = next(a for a in answers.values() if a.finding.collapses)
    assert collapse.answer == "cannot be told yet"
    assert "of 3 collapsed" in collapse.why


def test_a_collapsed_run_is_marked_by_fine_tuning_too(tmp_path: Path) -> None:
    protocol = {"split": "test", "metrics": ["finetune_accuracy"]}
    values = STUDY | {"protocol": protocol, "findings": [], "settings": {}}
    prepared = prepare(tmp_path / "s", values | {"published": None}, seeds=(0,))
    folder = prepared.directory.folder(run_of(prepared, "good", 0))
    train(folder)
    record(folder, "finetune_accuracy", of="encoder", split="test", value=0.4, verdict=None)
    status = {"state": "finished", "epoch": 4, "verdict": {"state": "complete collapse"}}
    (folder.run / "status.json").write_text(json.dumps(status))
    assert "| good | 40.00 (1), 1 collapsed |" in study_table(
        prepared.directory, "mine", form="markdown"
    )


def test_a_run_that_had_collapsed_before_it_diverged_has_collapsed(
    prepared: PreparedStudy,
) -> None:
    _fill(prepared, VALUES | {"bad": (0.1, 0.1)})
    last = run_of(prepared, "bad", 2)
    executor = InstantExecutor()
    executor.fails = {last: [4]}
    alone = prepared._replace(plan=prepared.plan._replace(runs={last: prepared.plan.runs[last]}))
    conduct(alone, executor)
    run = prepared.directory.folder(last).run
    run.mkdir(exist_ok=True)
    later = "3 of 3 collapsed, of which 1 diverged later"
    for verdict, answer, counted, ends, shown in (
        ("healthy", "cannot be told yet", "2 of 3 collapsed", ", 1 of 3 diverged", (2, 1, 0)),
        ("complete collapse", "shows", later, "", (2, 0, 1)),
    ):
        status = {"state": "diverged", "epoch": 3, "verdict": {"state": verdict}}
        (run / "status.json").write_text(json.dumps(status))
        results = _results(prepared)
        [found] = [a for a in answer_findings(results) if a.finding.collapses]
        assert found.answer == answer
        assert found.why.startswith(f"'bad': {counted};")
        assert f"; 'bad': {counted}{ends} (one-sided" in sentence(results)
        arms = study_overview(prepared.directory, results.stored).arms
        assert [(a.done, a.failed, a.diverged) for a in arms if a.name == "bad"] == [shown]
    table = study_table(prepared.directory, "mine", form="markdown")
    assert "| bad | 10.00 ± 0.00 (2), 2 collapsed, 1 diverged |" in table


def test_the_name_of_an_arm_stays_in_its_cell(tmp_path: Path) -> None:
    values = STUDY | {"arms": {"plain": {}, "good": {"epochs": 5}, "a|b\nc": {"epochs": 6}}}
    prepared = prepare(tmp_path / "s", values | {"findings": []})
    lines = study_table(prepared.directory, "mine", form="markdown").splitlines()
    rows = [line for line in lines if line.startswith("|") and "missing" in line]
    assert any(line.startswith("| a\\|b c |") for line in rows)
    assert not any(line.startswith("c |") for line in lines)
