"""Claims about `advise`: the budget becomes rungs, the best goes on, and a page is written."""

import shlex
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stopgrad
from stopgrad import studies
from stopgrad.cli import main
from stopgrad.cli.parser import parse
from stopgrad.config import preset
from stopgrad.errors import ConfigError, DataError
from stopgrad.face.advice import Advice, TriedSetting, _bounded_decay, _rung, _seconds
from stopgrad.method import published_extent
from stopgrad.studies import affordable_epochs, arms_around, least_time
from stopgrad.studies.executors import FileLocks
from stopgrad.studies.halving import FACTORS
from stopgrad.studies.task import StudyTask, carry_out
from tests.studies.instant import DoneJob


class HereExecutor(FileLocks):
    """Carries out each task in this process."""

    slots = 1

    def __init__(self) -> None:
        self.began: list[str] = []

    def start(self, task: StudyTask, *, slot: int, claim: int) -> DoneJob:
        self.began.append(task.stage)
        carry_out(task)
        return DoneJob(0)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> HereExecutor:
    made = HereExecutor()
    monkeypatch.setattr(studies, "executor_for", lambda *_, **__: made)
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 digits without labels."""
    path = tmp_path_factory.mktemp("pictures")
    pixels = stopgrad.load("mnist5k").dataset.train.pixels[:80]
    for number, image in enumerate(pixels):
        Image.fromarray(np.ascontiguousarray(image)).save(path / f"{number:03d}.png")
    return path


def test_of_any_two_knobs_each_pair_of_levels_is_tried_once() -> None:
    arms = arms_around(preset("miniature"))
    levels = [[arm.get(key, {"times": 1.0})["times"] for key in FACTORS] for arm in arms.values()]
    assert levels[0] == [1.0, 1.0, 1.0]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert len({(row[one], row[other]) for row in levels}) == 9
    assert next(iter(arms)) == "base_lr 0.8, alpha_h 1, crop_min 0.5"


def test_epochs_are_those_that_the_rung_has_time_for() -> None:
    """Nine runs are 3 x (1 + 2 + 1/2) = 10.5 lengths, 5.25 on each of two slots, and five starts.

    1,000 s less 5 x 15 s are 925 s: 8.8 epochs of 20 s on each, so 8; less 5 x 100 s: 4.8, so 4.
    """
    nine = arms_around(preset("miniature"))
    assert affordable_epochs(1000, nine, epoch_s=20, slots=2) == 8
    assert affordable_epochs(1000, nine, epoch_s=20, start_s=100, slots=2) == 4
    assert affordable_epochs(100, nine, epoch_s=20, slots=2) <= 0
    [slow] = (name for name in nine if name == "base_lr 0.4, alpha_h 2, crop_min 0.5")
    assert affordable_epochs(415, {slow: nine[slow]}, epoch_s=20, slots=2) == 10  # of twice 20 s


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("1h30m", 5400), ("90m", 5400), ("45s", 45), (12.5, 12.5)]
)
def test_a_budget_is_read(text: str | float, seconds: float) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3", "0", "nan", "2h2h", "9" * 5000 + "h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a time such as 2h, 1h30m or 90m"):
        _seconds(text)


def _advise(pictures: Path, out: Path, budget: str | float) -> Any:
    of = {"preset": "tiny", "knn_every": 0, "batch": 16, "device": "cpu"}
    return stopgrad.advise(str(pictures), budget=budget, out=out, **of)


def test_a_budget_ends_in_a_page_and_a_second_call_trains_nothing(
    pictures: Path, tmp_path: Path, here: HereExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs are set by hand, so that a slow machine tries as much as a fast one."""
    budgets = iter([2, 4, 8])
    monkeypatch.setattr(studies, "affordable_epochs", lambda *_, **__: next(budgets))
    found = _advise(pictures, tmp_path / "out", 600)
    assert here.began.count("pretrain") == 13
    tried = {rung: [t for t in found.tried if t.rung == rung] for rung in (1, 2, 3)}
    assert [len(runs) for runs in tried.values()] == [9, 3, 1]
    for rung, runs in tried.items():
        far = [each.config.optimizer.base_lr * each.config.epochs for each in runs]
        assert far == pytest.approx([0.8 * 2**rung] * len(runs))  # so that N is the same
        ranks = [each.rankme for each in runs]
        assert ranks == sorted(ranks, reverse=True)
    assert {t.arm for t in tried[2]} == {t.arm for t in tried[1][:3]}
    assert tried[3][0].arm == tried[2][0].arm == found.best.arm
    folds = found.best.folds * found.epochs / found.best.config.epochs
    assert folds == pytest.approx(published_extent().folds, rel=0.01)
    page = (tmp_path / "out" / "advice.md").read_text()
    assert found.command in page.splitlines()
    options = parse(shlex.split(found.command)[1:])
    assert options.config.epochs == found.epochs
    assert options.config.optimizer == found.best.config.optimizer  # factors of 2
    assert options.config.views.crop_min == pytest.approx(found.best.config.views.crop_min)
    assert "0000" not in found.command
    here.began.clear()
    again = _advise(pictures, tmp_path / "out", 600)
    assert here.began == []
    assert again.lines == found.lines


def _tried(arm: str, *, retrieval: float) -> TriedSetting:
    config = preset("tiny")
    return TriedSetting(1, arm, config, 100, 0.5, 9.0, retrieval, 8.0, 60.0, 70.0)


def test_the_command_has_the_values_of_knobs_as_they_were_given() -> None:
    config = preset("tiny", label_column="Species", stop_gradient=False)
    tried = _tried("a", retrieval=0.5)._replace(config=config)
    command = Advice([tried], spec="t.csv", preset="tiny", note="").command
    assert "--stop_gradient false --label_column Species" in command


def _searched(**overrides: Any) -> Any:
    return types.SimpleNamespace(
        config=preset("tiny", **overrides),
        images=types.SimpleNamespace(train=range(320)),
        slots=1,
        choices=studies.Choices("tiny", overrides, (0,)),
    )


def test_weight_decay_is_lowered_where_it_left_fewer_than_four_directions() -> None:
    few = _tried("a", retrieval=0.5)._replace(directions=1.0, steps=1000)
    decay = few.config.optimizer.weight_decay
    found, said = _bounded_decay(_searched(), [few])
    assert found == pytest.approx(decay / 4)
    assert said.startswith(
        f"Weight decay was lowered from {decay:g} to {decay / 4:.2g}, so that z keeps 4 directions"
    )
    for left in (few._replace(directions=4.0), few._replace(steps=999)):
        assert _bounded_decay(_searched(), [left]) == (decay, "")
    given = _searched(**{"optimizer.weight_decay": decay})
    assert _bounded_decay(given, [few]) == (decay, "")


@pytest.mark.parametrize(("factor", "epochs"), [(1.0, 4234), (1 / 8, 33864)])
def test_a_rung_ends_at_the_published_n_of_the_weight_decay_that_it_has(
    monkeypatch: pytest.MonkeyPatch, factor: float, epochs: int
) -> None:
    """N of the published run is 5e-4 x 0.06 x 38,800.5 / 0.1 = 11.64.

    That of an epoch of 10 steps is 5e-4 x 0.1 x 5.5 / 0.1 = 0.00275: 4,233 of them, made even.
    """
    monkeypatch.setattr(studies, "affordable_epochs", lambda *_, **__: 10**6)
    search, ran = _searched(), _tried(next(iter(arms_around(preset("tiny")))), retrieval=0.5)
    decay = ran.config.optimizer.weight_decay * factor
    lowered = ran._replace(config=preset("tiny", **{"optimizer.weight_decay": decay}))
    assert _bounded_decay(search, [lowered]) == (decay, "")  # it stays so
    rung = _rung(search, 2, [ran], left=60.0, decay=decay)
    assert rung is not None
    settings = {"epochs": epochs} | ({"optimizer.weight_decay": decay} if factor < 1 else {})
    assert rung.study.settings == settings


def test_a_setting_that_finds_few_second_views_comes_with_a_caution() -> None:
    """Many directions and little retrieval: it may have learned less, not better."""
    others = [_tried("b", retrieval=0.5), _tried("c", retrieval=0.4)]
    for retrieval, cautious in ((0.1, True), (0.45, False)):
        tried = [_tried("a", retrieval=retrieval), *others]
        found = Advice(tried, spec="pics", preset="tiny", note="")
        assert (
            any(
                line.startswith("Caution: by retrieval it came only number 3 of 3")
                for line in found.lines
            )
            is cautious
        )


def test_a_budget_for_no_epoch_is_refused_in_one_line(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(pictures), "--out", str(tmp_path / "out"), "--preset", "tiny"]
    assert main(["advise", *words, "--budget", "5s", "--batch", "16"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "is too small for two epochs of 9 settings; expected at least " in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("slots", [1, 2, 7, 16])
def test_the_least_time_of_a_rung_is_enough_for_two_epochs(slots: int) -> None:
    how: dict[str, Any] = {"epoch_s": 600.0, "start_s": 20.0, "slots": slots}
    arms = arms_around(preset("tiny"))
    least = least_time(arms, **how)
    assert affordable_epochs(least, arms, **how) == 2
    assert affordable_epochs(0.99 * least, arms, **how) < 2


@pytest.mark.parametrize(
    "knob", [{"optimizer.weight_decay": 0}, {"optimizer.algorithm": "lars"}, {"epochs": 3}]
)
def test_a_setting_whose_length_is_not_free_or_not_known_is_refused(
    pictures: Path, tmp_path: Path, knob: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"without N|--epochs beside --budget"):
        stopgrad.advise(
            str(pictures), budget=60, out=tmp_path / "out", preset="tiny", **{"batch": 16} | knob
        )


def test_images_that_augmentation_does_not_change_are_refused(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("RGB", (20, 20), (12 * number, 0, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match="augmentation does not change these images"):
        stopgrad.advise(
            str(tmp_path),
            budget=60,
            out=tmp_path / "out",
            preset="tiny",
            batch=16,
            **{"views.jitter": 0, "views.grayscale": 0},
        )
