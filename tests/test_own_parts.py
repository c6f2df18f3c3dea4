"""Claims about parts that a Python caller gives: an encoder, views, a data set, a function."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stopgrad
from stopgrad import method
from stopgrad.config import ViewsConfig, preset
from stopgrad.errors import ConfigError
from stopgrad.images import Normalization
from stopgrad.method import two_views
from tests.promises.process import call_forked

MEAN_STD = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Small(nn.Sequential):
    """With dropout, which draws from the global generator."""

    def __init__(self, *more: nn.Module) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), *more
        )


def small(*, seed: int = 1, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return Small(nn.Conv2d(8, width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def noisy(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = pixels.float() / 255
    first, second = (torch.rand(x.shape, generator=generator) for _ in range(2))
    return (x + first) / 2, (x + second) / 2


def halves(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.full_like(pixels, 255), torch.full(pixels.shape, 0.5)


def careless(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = pixels.float() / 255 * random.random()
    return x, x


class Pairs:
    """A map-style data set of pairs."""

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        drawn = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        return drawn, index % 3


def _pretrain(out: Path, **more: Any) -> stopgrad.Run:
    parts = {"encoder": small(), "views": noisy}
    return stopgrad.pretrain(Pairs(), out=out, preset="tiny", **{"epochs": 2, **parts, **more})


class Twice(nn.Module):
    """Its layers have two names each."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()
        self.stem = self.net[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def test_an_encoder_may_know_a_layer_by_two_names(tmp_path: Path) -> None:
    run = _pretrain(tmp_path / "run", encoder=Twice(), epochs=1)
    state = run.encoder.state_dict()
    assert torch.equal(state["stem.weight"], state["net.0.weight"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> stopgrad.Run:
    return _pretrain(tmp_path_factory.mktemp("own") / "run")


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process is, which was not given the parts."""
    monkeypatch.setattr("stopgrad.method.own._encoders", {})
    monkeypatch.setattr("stopgrad.method.own._views", {})


def test_a_run_that_is_resumed_has_the_bits_of_one_that_never_stopped(
    run: stopgrad.Run, tmp_path: Path
) -> None:
    def stop(epoch: stopgrad.Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _pretrain(tmp_path / "run", on_epoch=stop)
    torch.manual_seed(99)  # what the caller draws has no part in it
    again = stopgrad.Run(tmp_path / "run", Pairs(), encoder=small(seed=2), views=noisy)
    assert [row["epoch"] for row in again.metrics] == [1]
    again.resume()
    assert [row["loss"] for row in again.steps] == [row["loss"] for row in run.steps]
    ours, theirs = again.encoder.state_dict(), run.encoder.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_what_an_encoder_draws_in_fine_tuning_is_decided_by_the_step(
    run: stopgrad.Run, tmp_path: Path
) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        out = tmp_path / str(seed)
        run.finetune(1, out=out, finetune={"epochs": 1, "batch": 32})
        rows = (out / "finetune" / "share-1" / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(row)["loss"] for row in rows])
    assert found[0] == found[1]


def test_the_module_of_the_caller_is_not_trained(tmp_path: Path) -> None:
    module = small()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trained = _pretrain(tmp_path / "run", encoder=module, epochs=1).encoder.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not torch.equal(trained["0.weight"], before["0.weight"])


def test_views_are_normalised_as_images_are() -> None:
    config = ViewsConfig(own=method.name_views(halves))
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    x1, x2 = two_views(
        pixels, torch.Generator().manual_seed(0), config=config, normalization=MEAN_STD
    )
    assert x1.unique().tolist() == [2.0]  # (255 / 255 - 0.5) / 0.25
    assert x2.unique().tolist() == [0.0]


def test_the_numbers_of_views_are_those_of_the_seed_and_the_step_alone() -> None:
    config = ViewsConfig(own=method.name_views(noisy))
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)

    def made(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        views = two_views(pixels, generator, config=config, normalization=MEAN_STD)
        return torch.stack([*views])

    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))
    assert not torch.equal(*made(0))


def test_views_that_ignore_their_generator_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pretrain(tmp_path / "run", views=careless, epochs=1)
    assert "own:careless take random numbers from outside" in capsys.readouterr().err


def test_an_epoch_is_handed_over_when_it_is_on_disk(tmp_path: Path) -> None:
    out, seen = tmp_path / "run", []

    def look(epoch: stopgrad.Epoch) -> None:
        seen.append((epoch.number, epoch.loss, stopgrad.Run(out).metrics[-1]["loss"]))

    _pretrain(out, on_epoch=look)
    assert [number for number, _, _ in seen] == [1, 2]
    assert all(given == written for _, given, written in seen)


def test_the_card_says_what_the_config_does_not_rebuild(run: stopgrad.Run, tmp_path: Path) -> None:
    card = run.export("onnx", tmp_path / "encoder.onnx").card
    name = run.config.encoder.name.removeprefix("own:")
    assert name.startswith("Small:")
    assert card["condition"][-1] == (
        "The config alone cannot rebuild it; these were given in Python: the encoder "
        f"{name}, the views noisy, the images."
    )
    assert card["features"] == 8


@pytest.mark.usefixtures("forgotten")
def test_without_its_encoder_a_run_is_refused_in_one_line(run: stopgrad.Run) -> None:
    opened = stopgrad.Run(run.path, Pairs())
    uses: list[Callable[[], object]] = [
        *(opened.evaluate, opened.embed, opened.verify, opened.finetune),
        lambda: opened.resume(extend=3),
    ]
    for use in uses:
        with pytest.raises(ConfigError, match=r"given again; use Python: .*encoder=\.\.\."):
            use()
    given = stopgrad.Run(run.path, Pairs(), encoder=small())
    assert given.embed().shape == (96, 8)
    assert all(finding.ok for finding in given.verify())


@pytest.mark.usefixtures("forgotten")
def test_without_its_views_a_run_is_scored_and_not_resumed(tmp_path: Path) -> None:
    config = preset("tiny").encoder.name
    run = _pretrain(tmp_path / "run", encoder={"name": config}, epochs=1)
    method.own._views.clear()
    assert len(run.evaluate(of="pixels", metrics="knn_accuracy")) == 1
    with pytest.raises(ConfigError, match=r"views 'own:noisy'.*views=\.\.\."):
        run.resume(extend=2)


def test_encoders_that_differ_in_a_layer_without_tensors_have_names_of_their_own() -> None:
    def name(activation: nn.Module) -> str:
        layers = nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.AdaptiveAvgPool2d(1))
        return method.name_encoder(nn.Sequential(layers, nn.Flatten()), channels=3, size=16)

    assert name(nn.ReLU()) == name(nn.ReLU()) != name(nn.GELU())
    assert name(nn.LeakyReLU(0.1)) != name(nn.LeakyReLU(0.2))


def test_other_parts_than_those_of_the_run_are_refused(run: stopgrad.Run) -> None:
    with pytest.raises(ConfigError, match=r"encoder 'own:Small:.*' for a run with 'own:Small:"):
        stopgrad.Run(run.path, encoder=small(width=4))
    with pytest.raises(ConfigError, match="views 'own:halves' for a run with 'own:noisy'"):
        stopgrad.Run(run.path, views=halves)


def test_untrained_is_scored_only_with_the_weights_that_the_run_began_with(
    run: stopgrad.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"metrics": "knn_accuracy", "of": ["encoder", "untrained"]}
    same = stopgrad.Run(run.path, Pairs(), encoder=small())
    assert [score.of for score in same.evaluate(**asked)] == ["encoder", "untrained"]
    other = stopgrad.Run(run.path, Pairs(), encoder=small(seed=2))
    assert [score.of for score in other.evaluate(**asked)] == ["encoder"]
    assert "untrained is left out" in capsys.readouterr().err


def test_what_cannot_work_with_a_part_is_refused_in_one_line(
    run: stopgrad.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for format in ("hub", "safetensors", "timm", "torchvision"):
        out = tmp_path / ("hub" if format == "hub" else "a.safetensors")
        with pytest.raises(ConfigError, match="expected one of onnx for this encoder"):
            run.export(format, out)  # type: ignore[arg-type]
    monkeypatch.setattr("stopgrad.method.compute.process_count", lambda: 2)
    with pytest.raises(ConfigError, match="given in Python with 2 processes"):
        method.joined(run.config)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"encoder": Small()}, r"makes \(2, 8, 4, 4\) of images \(2, 3, 16, 16\)"),
        ({"encoder": nn.Linear(5, 2)}, r"fails on images .*mat1 and mat2"),
        ({"views": lambda pixels, generator: (pixels, pixels)}, "a lambda"),
        ({"encoder": small(), "init": "timm:resnet18"}, "init with an encoder"),
    ],
)
def test_a_part_of_another_shape_is_refused_before_anything_is_read(
    part: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        stopgrad.pretrain(tmp_path / "absent", out=tmp_path / "run", preset="tiny", **part)


@pytest.mark.parametrize("wrong", [lambda x: x, lambda x: (x, x[:1]), lambda x: (x.int(), x)])
def test_views_of_another_shape_are_refused(wrong: Callable[[Tensor], Any]) -> None:
    def views(pixels: Tensor, generator: torch.Generator) -> Any:
        return wrong(pixels)

    config = ViewsConfig(own=method.name_views(views))
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="two tensors"):
        two_views(pixels, torch.Generator(), config=config, normalization=MEAN_STD)


def _go_on(run: Path) -> None:
    own = stopgrad.Run(run, Pairs(), encoder=small(), views=noisy)
    assert own.resume(extend=2).trained().epoch == 2


def test_views_that_are_normalised_already_are_refused(tmp_path: Path) -> None:
    """The usual end of torchvision's transforms; they would be normalised twice."""

    def normalised(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = (pixels / 255 - 0.45) / 0.225
        return x, x.flip(3)

    with pytest.raises(ConfigError, match=r"return values from .*leave out the normalization"):
        stopgrad.pretrain("mnist5k", out=tmp_path / "run", preset="tiny", views=normalised)


def test_another_process_goes_on_when_it_is_given_the_parts(tmp_path: Path) -> None:
    _pretrain(tmp_path / "run", epochs=1)
    call_forked(_go_on, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["views"]["own"] == "own:noisy"
