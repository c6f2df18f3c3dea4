"""Claims about a study's file, its arms and the addresses of its runs."""

import copy
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stopgrad.config import Config, preset
from stopgrad.errors import ConfigError
from stopgrad.studies import Choices, Place, built_in_studies, read_study, study_file
from stopgrad.studies.definition import Value, places
from stopgrad.studies.parse import parse_study
from stopgrad.studies.plan import PlannedRun, StudyPlan, address, arm_configs, plan_runs

GOOD: dict[str, Any] = {
    "question": "How fast?",
    "baseline": "slow",
    "settings": {"validation": 0.2},
    "arms": {"slow": {}, "fast": {"optimizer.base_lr": 0.5}},
    "protocol": {"split": "validation", "labels": [0.1, 1], "metrics": ["knn_accuracy"]},
    "findings": [{"says": "faster is better", "higher": "fast", "than": "slow", "margin": 1}],
    "published": {
        "source": "somebody",
        "seeds": 3,
        "values": {"fast": {"knn_accuracy": [[50.0, 1.0], [60.5]]}},
    },
}


def _configs(values: Mapping[str, Any], **choices: Any) -> dict[str, Config]:
    chosen = {"preset": "tiny", "overrides": {}, "seeds": (0, 1)} | choices
    return arm_configs(parse_study(values, name="mine"), Choices(**chosen))


def _with(path: str, value: Any) -> dict[str, Any]:
    """The good study with one field changed, or left out when the value is None."""
    values = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    level = values
    for parent in parents:
        level = level[parent]
    if value is None:
        del level[last]
    else:
        level[last] = value
    return values


def _plan(values: Mapping[str, Any], fingerprint: str = "f", **choices: Any) -> StudyPlan:
    chosen = Choices(**({"preset": "tiny", "overrides": {}, "seeds": (0, 1)} | choices))
    source = parse_study(values, name="mine")
    configs = arm_configs(source, chosen)
    return plan_runs(source, chosen, configs, fingerprints=dict.fromkeys(configs, fingerprint))


def test_a_good_study_is_read_as_it_stands() -> None:
    _, study, problems = parse_study(GOOD, name="mine")
    assert problems == ()
    assert study.published is not None
    assert study.published.values == {
        Place("fast", "knn_accuracy", 0.1): Value(50.0, 1.0),
        Place("fast", "knn_accuracy", 1): Value(60.5, None),
    }
    [finding] = study.findings
    assert finding.higher == Place("fast", "knn_accuracy", 1)
    assert finding.margin == 0.01  # a point, as a fraction
    assert places(study) == [
        Place(arm, "knn_accuracy", labels) for arm in ("slow", "fast") for labels in (0.1, 1)
    ]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("question", None, "question is missing"),
        ("baseline", "slo", "(did you mean slow?)"),
        ("arms", None, "arms is missing"),
        ("arms", [1], "KEY: VALUE lines"),
        ("arms/fast", {"optimizer.base_lr": "quick"}, "arms.fast: optimizer.base_lr = 'quick'"),
        ("arms/fast", {"optimiser.base_lr": 1}, "optimiser.base_lr (here optimizer.base_lr, "),
        ("arms/fast", {"batch": 1}, "at least 2"),
        ("arms/fast", {}, "arm 'fast' changes nothing"),
        ("arms/fast", {"optimizer.base_lr": 0.8}, "arm 'fast' changes nothing"),  # as tiny has it
        ("arms/more", {"optimizer.base_lr": 0.5}, "arms 'fast' and 'more' are equal"),
        ("arms/more", {"device": "cpu"}, "arm 'more' changes nothing"),  # of what is learned
        ("arms/more", {"supervised.base_lr": 3}, "arm 'more' changes nothing"),
        ("arms/more", {"seed": 3}, "seed is given by the seeds"),
        ("settings/measure_every", 0, "arm 'slow': measure_every = 0, so no collapse"),
        ("settings/stop_on_collapse", True, "arm 'slow': stop_on_collapse, which would"),
        ("settings", {"seed": 3}, "seed is given by the seeds"),
        ("arms/fast", {"stop_gradient": {"times": 2}}, "expected a number times a number"),
        ("arms/fast", {"method": "supervise"}, "did you mean supervised?"),
        ("arms/fast", {"method": "supervised"}, "scored only on the test split"),
        ("settings", {"validation": 0}, "holds out no images"),
        ("settings", {"validaton": 0.2}, "settings: unknown key validaton (did you mean"),
        ("setings", {}, "unknown field setings (did you mean settings?)"),
        ("protocol/split", None, "protocol.split is missing"),
        ("protocol/split", "tests", "did you mean test?"),
        ("protocol/labels", [1, 0.1], "rising fractions"),
        ("protocol/labels", [0, 1], "protocol.labels = 0"),
        ("protocol/labels", [1.5], "protocol.labels = 1.5"),
        ("protocol/metrics", ["knn_acuracy"], "did you mean knn_accuracy?"),
        ("protocol/metrics", ["knn_accuracy"] * 2, "each of them once"),
        (
            "protocol/metrics",
            ["knn_accuracy", "finetune_accuracy"],
            "scored only on the test split",
        ),
        ("protocol/correction", "holms", "did you mean holm?"),
        ("protocol/final_test", "perhaps", "true or false"),
        ("protocol/besides", [], "unknown field protocol.besides (did you mean beside?)"),
        ("findings", [{"says": "so"}], "neither higher and than nor collapses"),
        ("findings", [{"says": "so", "higher": "fast"}], "neither higher and than nor collapses"),
        ("findings", [{"says": "so", "collapses": ["fats"]}], "did you mean fast?"),
        ("findings", [{"says": "so", "labels": 1}], "unknown field findings.1.labels"),
        ("published/values/fast/knn_accuracy", [[1, 2]], "2 pairs [mean, std]"),
        ("published/values/quick", {}, "unknown field published.values.quick"),
        ("published/source", None, "published.source"),
    ],
)
def test_whatever_is_wrong_is_named_before_anything_starts(
    path: str, value: Any, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _configs(_with(path, value))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_errors_come_at_once() -> None:
    values = _with("baseline", "none") | {"frob": 1}
    values["arms"]["fast"]["batch"] = 0
    with pytest.raises(ConfigError) as caught:
        _configs(values, preset="tinny", overrides={"epocs": 3, "seed": 1}, seeds=(1, 1, -1))
    for said in (
        "unknown field frob",
        "baseline = 'none'",
        "arms.fast: batch = 0",
        "did you mean tiny",
        "did you mean epochs",
        "seed is given by the seeds",
        "seed 1 twice",
        "seed -1",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize("contents", ["", "- a\n- b\n", "7", "question: [", "a: &b [*b]\n", "\0"])
def test_a_file_that_is_no_study_is_one_error(contents: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(contents)
    with pytest.raises(ConfigError):
        arm_configs(read_study(str(file)), Choices("tiny", {}, (0,)))


def test_an_unknown_study_is_named_with_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="did you mean weight-decay"):
        read_study("weight_decay")
    with pytest.raises(ConfigError, match="did you mean labels"):
        study_file("lables")


def test_what_the_user_overrides_holds_for_all_arms_but_not_for_what_they_differ_in() -> None:
    found = _configs(GOOD, overrides={"epochs": "7", "views.size": "24"})
    assert {(config.epochs, config.views.size) for config in found.values()} == {(7, 24)}
    with pytest.raises(ConfigError, match=r"optimizer\.base_lr is what the arms differ in"):
        _configs(GOOD, overrides={"optimizer.base_lr": "1"})


def test_a_factor_multiplies_what_the_study_has_otherwise() -> None:
    values = _with("settings/epochs", {"times": 1.25})
    values["arms"]["fast"] = {"optimizer.base_lr": {"times": 0.5}, "epochs": {"times": 2}}
    found = _configs(values)
    assert (found["slow"].epochs, found["fast"].epochs) == (5, 10)  # tiny has 4
    assert found["fast"].optimizer.base_lr == 0.5 * found["slow"].optimizer.base_lr
    found = _configs(values, overrides={"epochs": "3"})  # the user's word replaces the setting
    assert (found["slow"].epochs, found["fast"].epochs) == (3, 6)


def test_numbers_that_yaml_reads_as_text_and_names_that_it_reads_as_numbers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "question: Which?\nbaseline: 0.0005\nprotocol: {split: test}\n"
        "arms:\n  0.0005: {}\n  '2': {optimizer.base_lr: {times: 1e-1}}\n"
    )
    source = read_study(str(path))
    assert source.problems == ()
    assert source.study.baseline == "0.0005"
    configs = arm_configs(source, Choices("tiny", {}, (0,)))
    usual = configs["0.0005"].optimizer.base_lr
    assert configs["2"].optimizer.base_lr == pytest.approx(0.1 * usual)


def test_half_of_a_study_is_half_of_each_arm() -> None:
    slots = _plan(GOOD, seeds=(0, 1)).slots
    assert [(slot.arm, slot.seed) for slot in slots] == [
        *(("slow", 0), ("fast", 0)),
        *(("slow", 1), ("fast", 1)),
    ]


def test_arms_of_two_studies_that_want_the_same_run_share_it() -> None:
    other = {key: GOOD[key] for key in ("question", "baseline", "settings", "protocol")}
    other["arms"] = {"slow": {}, "late": {"epochs": 9}}
    first, second = _plan(GOOD), _plan(other)
    shared = set(first.runs) & set(second.runs)
    assert shared == {slot.run for slot in first.slots if slot.arm == "slow"}


def test_an_address_is_a_function_of_what_decides_a_run_and_of_nothing_else() -> None:
    def at(config: Config, fingerprint: str = "f", **changes: Any) -> str:
        run = PlannedRun("", "simsiam", config, None)._replace(**changes)
        return address(run, fingerprint=fingerprint)

    base = preset("tiny")
    free = [("device", "cpu"), ("threads", 3), ("process_timeout", 900.0)]
    free += [("supervised.base_lr", 0.123)]
    same = [preset("tiny", **{key: value}) for key, value in free]
    assert {at(config) for config in same} == {at(base)}
    others = [
        at(preset("tiny", seed=1)),
        at(preset("tiny", **{"optimizer.weight_decay": 1e-5})),
        at(preset("tiny", stop_gradient=False)),
        at(base, "g"),
        at(base, method="supervised", labels=1.0),
        at(base, method="supervised", labels=0.1),
        at(preset("tiny", **{"supervised.base_lr": 0.123}), method="supervised", labels=0.1),
    ]
    assert len({at(base), *others}) == 8


def test_a_knob_that_a_later_version_adds_moves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = PlannedRun("", "simsiam", preset("tiny"), None)
    before = address(run, fingerprint="f")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class LaterConfig(Config):
        novelty: float = 0.5

    values = {field.name: getattr(run.config, field.name) for field in dataclasses.fields(Config)}
    monkeypatch.setattr("stopgrad.studies.plan.Config", LaterConfig)
    assert address(run._replace(config=LaterConfig(**values)), fingerprint="f") == before
    later = run._replace(config=LaterConfig(**values, novelty=0.6))
    assert address(later, fingerprint="f") != before


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("protocol/labels", [10**400], "protocol.labels = 1"),
        ("arms/fast", {"epochs": {"times": 10**400}}, "expected a number times a number"),
        ("published/values/fast/knn_accuracy", [[math.inf], [1.0]], "= inf"),
        ("findings", [{"says": "s", "higher": "fast", "than": "slow", "margin": math.inf}], "inf"),
        ("findings", [{"says": "s", "collapses": [0]}], "collapses = 0 (expected one of slow"),
    ],
)
def test_a_number_that_nothing_can_hold_is_one_error(path: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _configs(_with(path, value))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arm", "baseline"),
    [('"5e-4"', "0.0005"), ("5e-4", "5.0e-4"), ("0", "0"), ("1.0e-3", "1e-3"), ("yes", '"yes"')],
)
def test_an_arm_is_named_by_what_is_written_or_by_its_number(
    tmp_path: Path, arm: str, baseline: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"question: q\nbaseline: {baseline}\narms: {{{arm}: {{}}, b: {{epochs: 2}}}}\n"
        f"protocol: {{split: test}}\nfindings: [{{says: s, collapses: [{baseline}]}}]\n"
    )
    source = read_study(str(path))
    assert source.problems == ()
    assert source.study.baseline == source.study.arms[0].name == arm.strip('"')
    assert source.study.findings[0].collapses == (arm.strip('"'),)
    assert parse_study(json.loads(json.dumps(source.values)), name="mine") == source


# The studies of the package


@pytest.mark.parametrize("name", built_in_studies())
@pytest.mark.parametrize("chosen", ["cifar", "cpu"])
def test_a_study_of_the_package_can_be_run(name: str, chosen: str) -> None:
    source = read_study(name)
    assert source.problems == ()
    found = arm_configs(source, Choices(chosen, {}, (0, 1, 2)))
    assert len(found) == len(source.study.arms) > 1
    assert yaml.safe_load(study_file(name))["question"] == source.study.question


def test_the_studies_are_those_of_the_report() -> None:
    assert built_in_studies() == sorted(
        ("reproduction", "labels", "predictor-lr", "weight-decay", "components", "improved")
    )


def test_the_length_of_validation_runs_is_the_reports() -> None:
    # Report: 800 epochs on all images, 1000 on the 80 %.
    for name in ("weight-decay", "predictor-lr", "components"):
        for config in arm_configs(read_study(name), Choices("cifar", {}, (0,))).values():
            assert (config.epochs, config.validation) == (1000, 0.2)
    whole, split = arm_configs(read_study("reproduction"), Choices("cifar", {}, (0,))).values()
    assert (whole.epochs, whole.validation) == (800, 0.0)
    assert (split.epochs, split.validation) == (1000, 0.2)


def test_the_baseline_of_the_validation_studies_is_one_run_on_the_papers_preset() -> None:
    runs = []
    for name in ("weight-decay", "predictor-lr", "components"):
        source, choices = read_study(name), Choices("cifar", {}, (0,))
        configs = arm_configs(source, choices)
        plan = plan_runs(source, choices, configs, fingerprints=dict.fromkeys(configs, "f"))
        [slot] = [slot for slot in plan.slots if slot.arm == source.study.baseline]
        runs.append(slot.run)
    assert len(set(runs)) == 1


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("weight-decay", Place("1.5e-3", "linear_published_accuracy", 0.1), Value(56.52, 4.84)),
        ("predictor-lr", Place("1/3 cosine", "knn_accuracy", 0.01), Value(38.21, 5.57)),
        (
            "predictor-lr",
            Place("4/3 constant", "linear_published_accuracy", 1.0),
            Value(89.04, 0.57),
        ),
        ("components", Place("no predictor", "correlation_strength", 1.0), Value(0.998, None)),
        (
            "improved",
            Place("alpha_h 2/3 cosine", "linear_published_accuracy", 0.01),
            Value(86.38, 0.23),
        ),
        ("labels", Place("SimSiam", "knn_accuracy", 0.1), Value(88.27, 0.26)),
        (
            "reproduction",
            Place("80 %-20 % split", "linear_published_accuracy", 1.0),
            Value(88.34, 0.21),
        ),
    ],
)
def test_published_numbers_stand_where_the_report_has_them(
    name: str, place: Place, value: Value
) -> None:
    published = read_study(name).study.published
    assert published is not None
    assert published.values[place] == value


def test_a_plan_survives_json() -> None:
    source = read_study("components")
    assert parse_study(json.loads(json.dumps(source.values)), name="components") == source


@pytest.mark.parametrize("arm", ["b", "0"])
def test_an_arm_that_appears_twice_is_not_lost_in_silence(tmp_path: Path, arm: str) -> None:
    path = tmp_path / "mine.yaml"
    arms = f"arms:\n  a: {{}}\n  {arm}: {{lr: 1}}\n  {arm}: {{lr: 2}}\n"
    path.write_text(f"question: Which?\nbaseline: a\n{arms}")
    with pytest.raises(ConfigError, match=f"{arm}'? appears twice"):
        read_study(str(path))


def test_the_choices_of_a_list_are_told_without_one_that_nobody_can_write() -> None:
    values = copy.deepcopy(GOOD)
    values["protocol"]["metrics"] = ["knn_acuracy"]
    with pytest.raises(ConfigError) as caught:
        _configs(values)
    assert "knn_accuracy" in caught.value.found
    assert "None" not in caught.value.found
