"""Claims about `compare` and its command."""

import dataclasses
import hashlib
import itertools
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.cli import main
from stopgrad.config import LabelFreeName, preset
from stopgrad.errors import ConfigError
from stopgrad.evaluation import COMPARED, LABEL_FREE, Comparison, append, compare_runs, records_of
from stopgrad.evaluation.accuracies import accuracies
from stopgrad.evaluation.evaluate import whole_record
from stopgrad.evaluation.statistics import kendall
from stopgrad.images import Dataset, Images, images_from_arrays, load_dataset
from stopgrad.method import build_simsiam
from stopgrad.runs import RunWriter, TrainedRun, load_run
from tests.runs.factories import checkpoint, info
from tests.training.factories import encoder_run

STEPS = 4 * 8  # of a whole run: 4 epochs of 8


def _images(count: int, *, seed: int, labels: bool = True) -> Images:
    """Pictures of one of two colours with noise, labelled by it."""
    chance = np.random.default_rng(seed)
    of = np.arange(count) % 2
    noise = chance.integers(0, 120, (count, 16, 16, 3))
    pixels = noise + 120 * (of[:, None, None, None] == [0, 1, 1])
    return images_from_arrays(pixels.astype(np.uint8), labels=of if labels else None)


DATA = Dataset("two colours", _images(60, seed=0), _images(40, seed=1))


def _run(
    path: Path,
    *,
    weights: int,
    spoilt: bool = False,
    epoch: int = 4,
    validation: float = 0.0,
    **of: object,
) -> Path:
    """A run of 4 epochs with the weights of a seed, which learned nothing."""
    config = preset("tiny", seed=len(path.name), validation=validation, **{"knn.k": 20})
    card = info(config, **({"fingerprint": DATA.train.fingerprint} | of))
    model = dict(build_simsiam(preset("tiny", seed=weights)).state_dict())
    if spoilt:  # finite weights, as a checkpoint must have, whose outputs are not
        model["encoder.conv1.weight"] = torch.full_like(model["encoder.conv1.weight"], 3e38)
    with RunWriter.create(path, card) as writer:
        writer.begin()
        step = STEPS * epoch // 4
        writer.save(checkpoint(step, writer.info, model=model))
        writer.set_status("finished" if epoch == 4 else "running", step=step, epoch=epoch)
    return path


def _record(path: Path, *, epoch: int = 4, split: str = "test", **values: float) -> None:
    for metric, value in values.items():
        record = whole_record(
            load_run(path).info,
            name="two colours",
            metric=metric,
            value=value,
            of="encoder",
            split=split,
            images_scored=40,
            protocol={},
            epoch=epoch,
            wall_s=0.0,
        )
        append(path / "records.jsonl", record)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four runs with other weights each, and accuracies in the order of their names."""
    root = tmp_path_factory.mktemp("runs")
    runs = [_run(root / "run"[: n + 1].ljust(n + 1, "n"), weights=n) for n in range(4)]
    for number, run in enumerate(runs):
        _record(run, knn_accuracy=0.5 + number / 40, linear_accuracy=0.9 - number / 40)
        _record(run, knn_accuracy=1 - number / 40, epoch=3)  # of an earlier checkpoint
    return runs


@pytest.fixture(scope="module")
def found(paths: list[Path]) -> Comparison:
    return compare_runs([load_run(path) for path in paths], [DATA] * len(paths))


def _tau(one: list[float], other: list[float]) -> float:
    """Pairs in the same order less pairs in the reverse order, of those that have an order."""
    pairs = list(itertools.combinations(range(len(one)), 2))
    signs = [(np.sign(one[i] - one[j]), np.sign(other[i] - other[j])) for i, j in pairs]
    ordered = [sum(sign != 0 for sign in signs) for signs in zip(*signs, strict=True)]
    return float(sum(a * b for a, b in signs) / np.sqrt(ordered[0] * ordered[1]))


def test_kendalls_tau_counts_pairs_and_few_runs_prove_nothing() -> None:
    one, other = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 3.0, 2.0, 5.0, 4.0]
    result = kendall(one, other)
    assert result.tau == pytest.approx(_tau(one, other))
    same = kendall([1, 2, 3, 4], [10, 20, 30, 40])
    assert (same.tau, same.n) == (1, 4)
    assert same.p == pytest.approx(2 / 24)
    assert same.smallest_p == pytest.approx(same.p)


def test_an_order_needs_two_numbers_that_differ() -> None:
    assert kendall([1], [2]) is None
    assert kendall([1, 1, 1], [1, 2, 3]) is None


def test_runs_come_in_the_order_of_the_measure_and_tau_says_how_labels_order_them(
    found: Comparison,
) -> None:
    values = [row.measures.rankme for row in found.rows]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4
    assert [row.ranks["rankme"] for row in found.rows] == [1, 2, 3, 4]
    knn = [row.accuracies["knn_accuracy"] for row in found.rows]
    taus = {(a.measure, a.accuracy): a.kendall for a in found.agreements}
    assert len(taus) == len(LABEL_FREE) * len(COMPARED)
    for name in LABEL_FREE:
        by_knn, by_probe = taus[name, "knn_accuracy"], taus[name, "linear_accuracy"]
        values = [getattr(row.measures, name) for row in found.rows]
        assert by_knn.tau == pytest.approx(_tau(values, knn))
        assert by_probe.tau == pytest.approx(-by_knn.tau)  # the probe has them in reverse


def test_a_record_of_another_epoch_does_not_count(found: Comparison) -> None:
    assert max(row.accuracies["knn_accuracy"] for row in found.rows) == pytest.approx(0.575)


def test_runs_of_the_same_weights_measure_the_same_whatever_their_seeds(tmp_path: Path) -> None:
    runs = [load_run(_run(tmp_path / name, weights=7)) for name in ("a", "bb", "ccc")]
    assert len({run.info.config.seed for run in runs}) == 3
    rows = compare_runs(runs, [DATA] * 3, score=False).rows
    assert len({row.measures for row in rows}) == 1
    assert all(set(row.ranks.values()) == {1} for row in rows)


def test_comparing_writes_nothing_into_a_run(paths: list[Path]) -> None:
    def mark() -> list[str]:
        files = sorted(file for path in paths for file in path.rglob("*") if file.is_file())
        return [f"{file}{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]

    before = mark()
    compare_runs([load_run(path) for path in paths], [DATA] * len(paths))
    assert mark() == before


def test_what_no_record_has_is_scored_where_there_are_labels(tmp_path: Path) -> None:
    """Two colours are easy even for an encoder that learned nothing."""
    runs = [load_run(_run(tmp_path / name, weights=n)) for n, name in enumerate(("a", "bb"))]
    _record(runs[0].path, knn_accuracy=0.125)
    first, second = accuracies(runs, [DATA, DATA])
    assert first.records["knn_accuracy"].value == 0.125
    assert first.scored_now == ("linear_accuracy",)
    assert second.scored_now == COMPARED
    assert second.records["knn_accuracy"].value > 0.9
    assert accuracies(runs, None)[1].records == {}
    corrected = DATA._replace(test=DATA.test.take(np.arange(4)))
    assert accuracies(runs, [corrected] * 2)[0].scored_now == ("linear_accuracy",)  # no mark yet
    [stale] = records_of(runs[0].path)
    marked = dataclasses.replace(stale, data=stale.data | {"scored": DATA.test.fingerprint})
    append(runs[0].path / "records.jsonl", marked)
    assert accuracies(runs, [corrected] * 2)[0].scored_now == COMPARED
    notes = compare_runs(runs, [DATA, DATA]).notes
    assert any(note.startswith("scored now on images of test, not in") for note in notes)


def test_runs_that_all_hold_images_out_are_scored_on_those_and_the_test_images_left_alone(
    tmp_path: Path,
) -> None:
    names = ("a", "bb")
    runs = [load_run(_run(tmp_path / n, weights=len(n), validation=0.2)) for n in names]
    _record(runs[0].path, split="validation", knn_accuracy=0.75, linear_accuracy=0.5)
    _record(runs[1].path, split="test", knn_accuracy=0.25, linear_accuracy=0.25)
    recorded, scored = accuracies(runs, [DATA, DATA])
    assert recorded.scored_now == ()
    assert [record.value for record in recorded.records.values()] == [0.75, 0.5]
    assert scored.scored_now == COMPARED
    assert {record.split for record in scored.records.values()} == {"validation"}
    whole = load_run(_run(tmp_path / "ccc", weights=3))
    assert accuracies([*runs, whole], [DATA] * 3)[0].scored_now == COMPARED  # on the test images


def test_outputs_that_are_not_finite_rank_last_and_are_null_in_json(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = _run(tmp_path / "spoilt", weights=0, spoilt=True)
    _record(spoilt, knn_accuracy=0.1, linear_accuracy=0.1)
    folder = _folder(tmp_path / "data")
    words = [str(path) for path in (spoilt, *paths)]
    assert main(["compare", *words, "--data", str(folder), "--json", "--no-scores"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    runs = [line for line in lines if line["kind"] == "run"]
    assert [line["place"] for line in runs] == [1, 2, 3, 4, 5]
    assert runs[-1]["run"] == str(spoilt)
    assert set(runs[-1]["measures"].values()) == {None}
    taus = [line["kendall"] for line in lines if line["kind"] == "agreement"]
    assert {tau["n"] for tau in taus} == {4}  # the spoilt run has an accuracy but no rank
    assert all("trained on other images" in line["notes"][0] for line in runs)


def _folder(path: Path) -> Path:
    path.mkdir()
    for number, pixels in enumerate(DATA.train.pixels[:20]):
        Image.fromarray(pixels).save(path / f"{number}.png")
    return path


def test_runs_of_different_images_are_refused_until_images_are_named(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = _run(tmp_path / "other", weights=1, fingerprint="e" * 64, name="elsewhere")
    assert main(["compare", str(paths[0]), str(other)]) == 3
    assert "elsewhere eeeeeeeeeeee" in capsys.readouterr().err
    folder = _folder(tmp_path / "data")
    assert main(["compare", str(paths[0]), str(other), "--data", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "trained on other images (elsewhere)" in out
    assert "no accuracies are compared" in out
    assert "kNN" not in out


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "nothing to rank"),
        (2, "(n = 2: it can only be +1 or -1, which says little)"),
        (4, "(n = 4: with so few runs no order is significant at 5 %)"),
    ],
)
def test_a_reader_is_told_how_little_few_runs_say(
    paths: list[Path], tmp_path: Path, count: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(path) for path in paths[:count]]
    assert main(["compare", *words, "--data", str(_folder(tmp_path / "data"))]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert out.splitlines()[1].startswith("run\tRankMe\t")  # tabs where it is no terminal


def test_directions_are_not_counted_across_widths_but_images_are_found(
    paths: list[Path], tmp_path: Path
) -> None:
    wide = encoder_run(
        tmp_path / "wide",
        data={"fingerprint": DATA.train.fingerprint, "name": "two colours", "spec": "two"},
        **{"encoder.width": 2.0, "knn.k": 5},
    )
    runs = [load_run(paths[0]), wide]
    with pytest.raises(ConfigError, match="of 64 and 128 channels to rank by rankme"):
        compare_runs(runs, [DATA] * 2, score=False)
    found = compare_runs(runs, [DATA] * 2, by="retrieval", score=False)
    assert any("favour the wide" in note for note in found.notes)


def test_a_run_that_has_not_ended_is_named(paths: list[Path], tmp_path: Path) -> None:
    half = load_run(_run(tmp_path / "half", weights=7, epoch=2))
    found = compare_runs([load_run(paths[0]), half], [DATA] * 2, score=False)
    [said] = [note for note in found.notes if note.startswith("not trained to the end")]
    assert said.startswith(f"not trained to the end: {half.path};")
    assert [row.notes for row in found.rows if row.run.path == half.path] == [("epoch 2 of 4",)]


def test_a_run_named_twice_is_refused(paths: list[Path]) -> None:
    with pytest.raises(ConfigError, match="named twice"):
        compare_runs([load_run(paths[0]), load_run(paths[0])], [DATA] * 2)


def _pictures(path: Path) -> Path:
    """48 pictures of two colours in two classes, of several sizes up to 40 px."""
    for number, pixels in enumerate(_images(48, seed=2).pixels):
        place = path / f"class{number % 2}" / f"{number:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        side = 33 + number % 8
        Image.fromarray(pixels).resize((side, side)).save(place)
    return path


def _run_of(path: Path, data: Path, *, size: int, **knobs: object) -> TrainedRun:
    """A run that would have learned from a folder at a size of views."""
    of = {"views.size": size, "knn.k": 5} | knobs
    side = preset("tiny", **of).image_side
    mark = load_dataset(str(data), side=side).train.fingerprint
    return encoder_run(path, data={"spec": str(data), "fingerprint": mark, "name": "p"}, **of)


def test_runs_of_one_folder_at_other_sizes_are_compared_each_at_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _pictures(tmp_path / "data")
    small = _run_of(tmp_path / "small", data, size=16)
    large = _run_of(tmp_path / "large", data, size=32)
    assert small.info.data["fingerprint"] != large.info.data["fingerprint"]
    found = {}
    for runs in ([small, large], [large, small]):
        assert main(["compare", *(str(run.path) for run in runs), "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        rows = {line["run"]: line for line in lines if line["kind"] == "run"}
        assert [rows[str(run.path)]["view_size"] for run in (small, large)] == [16, 32]
        assert all(set(row["accuracies"]) == set(COMPARED) for row in rows.values())
        assert not any("other images" in str(row["notes"]) for row in rows.values())
        found[str(runs[0].path)] = {path: row["measures"] for path, row in rows.items()}
        notes = [line["note"] for line in lines if line["kind"] == "note"]
        assert "each run is measured on views of its own size (views.size 16 and 32 px)" in notes
    one, other = found.values()
    assert one == other  # whoever is named first


def test_one_folder_that_changed_between_two_runs_is_refused_with_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _pictures(tmp_path / "data")
    small = _run_of(tmp_path / "small", data, size=16)
    (data / "class0" / "00.png").unlink()
    large = _run_of(tmp_path / "large", data, size=32)
    assert main(["compare", str(small.path), str(large.path)]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"; {data} gives {small.path} now " in said
    assert said.endswith("name the images to measure all of them on with --data")


def test_a_backbone_of_fixed_sizes_is_measured_at_its_own(tmp_path: Path) -> None:
    data = _pictures(tmp_path / "data")
    vit = {"encoder.name": "timm:test_vit"}
    runs = [
        _run_of(tmp_path / "first", data, size=20).path,
        _run_of(tmp_path / "second", data, size=32, **vit).path,
    ]
    assert main(["compare", *map(str, runs), "--no-scores"]) == 0


def test_the_help_names_every_measure() -> None:
    assert get_args(LabelFreeName) == LABEL_FREE
