"""Claims about `export`: other tools load the files and give the same features."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from stopgrad.cli import main
from stopgrad.config import EncoderConfig
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.export import PretrainedEncoder, export_run, run_condition
from stopgrad.export import write as write_module
from stopgrad.export.card import describe
from stopgrad.export.formats import formats_for, layout
from stopgrad.runs import RunWriter, TrainedRun
from stopgrad.storage import write_json
from stopgrad.training import card_of
from tests.runs.factories import edit
from tests.training.factories import encoder_run

CLOSE = 2e-6  # of the largest feature: rounding of fp32, whatever the order of the sums


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    knobs = {"encoder.name": "resnet18", "encoder.stem": "small", "seed": 3}
    return encoder_run(tmp_path_factory.mktemp("resnet") / "run", **knobs)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return encoder_run(tmp_path_factory.mktemp("narrow") / "run")


def _x() -> torch.Tensor:
    return torch.randn(3, 3, 20, 20, generator=torch.Generator().manual_seed(7))


def _ours(run: TrainedRun, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return run.model.encoder(x)


def _as_the_card_says(card: dict[str, Any], folder: Path) -> torch.Tensor:
    """What a fresh Python makes of x with the lines of a card and nothing of stopgrad."""
    np.save(folder / "x.npy", _x().numpy())
    end = "import numpy, torch\nwith torch.inference_mode():\n"
    end += "    y = model(torch.from_numpy(numpy.load('x.npy')))\nnumpy.save('y.npy', y.numpy())\n"
    end += "import sys\nassert 'stopgrad' not in sys.modules\n"
    script = "\n".join(card["load"]) + "\n" + end
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=folder, check=True)
    return torch.from_numpy(np.load(folder / "y.npy"))


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_a_library_loads_the_file_strictly_by_the_lines_of_its_card(
    resnet: TrainedRun, tmp_path: Path, name: Any
) -> None:
    made = export_run(resnet, name=name, out=tmp_path / "encoder.safetensors")
    assert made.difference is not None
    assert made.difference <= CLOSE
    card = json.loads((tmp_path / "encoder.safetensors.json").read_text())
    assert card["checked"].startswith(f"{name} ")
    assert "model.maxpool = nn.Identity()" in card["load"]
    ours = _ours(resnet, _x())
    theirs = _as_the_card_says(card, tmp_path)
    assert float((ours - theirs).abs().max() / ours.abs().max()) <= CLOSE


@pytest.mark.parametrize("stem", ["small", "half", "large"])
@pytest.mark.parametrize("encoder", ["resnet10", "resnet34", "resnet50"])
def test_every_network_that_is_offered_has_our_names_and_shapes(encoder: str, stem: Any) -> None:
    config = EncoderConfig(name=encoder, stem=stem)
    with torch.device("meta"):
        ours = _shapes(_built(config))
        for name in ("torchvision", "timm"):
            assert _shapes(layout(config, name).build()) == ours


def _built(config: EncoderConfig) -> torch.nn.Module:
    from stopgrad.method import RESNETS
    from stopgrad.method.resnet import ResNet

    return ResNet(RESNETS[config.name], stem=config.stem, width=config.width)


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def test_timm_gives_its_maps_of_features_from_the_same_file(
    resnet: TrainedRun, tmp_path: Path
) -> None:
    import timm

    out = tmp_path / "encoder.safetensors"
    export_run(resnet, name="timm", out=out)
    model = timm.create_model("resnet18", features_only=True)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    model.load_state_dict(load_file(out))
    with torch.inference_mode():
        last = model.eval()(_x())[-1].mean(dim=(2, 3))
    ours = _ours(resnet, _x())
    assert float((last - ours).abs().max() / ours.abs().max()) <= CLOSE


def test_a_network_that_no_library_builds_is_refused_with_the_formats_that_work(
    narrow: TrainedRun, tmp_path: Path
) -> None:
    for name in ("torchvision", "timm"):
        with pytest.raises(ConfigError, match=r"cifar_resnet8.*safetensors, onnx, hub"):
            export_run(narrow, name=name, out=tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
    assert formats_for(EncoderConfig(name="resnet18", width=0.5)) == formats_for(
        EncoderConfig(name="cifar_resnet8")
    )
    assert "torchvision" not in formats_for(EncoderConfig(name="timm:resnet18"))


def test_onnx_runtime_gives_the_same_features_for_any_batch_and_size(
    narrow: TrainedRun, tmp_path: Path
) -> None:
    import onnx
    import onnxruntime

    out = tmp_path / "encoder.onnx"
    made = export_run(narrow, name="onnx", out=out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 16, 16), (5, 3, 28, 20)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        [theirs] = session.run(None, {"x": x.numpy()})
        ours = _ours(narrow, x)
        assert float((ours - torch.from_numpy(theirs)).abs().max() / ours.abs().max()) <= CLOSE
    stated = session.get_modelmeta().custom_metadata_map
    assert json.loads(stated["mean"]) == [0.1, 0.2, 0.3]
    assert "pixels / 255" in stated["input"]
    assert json.loads(stated["card"])["weights_sha256"] == made.card["weights_sha256"]
    text = str(onnx.load(out))
    assert str(Path(__file__).parents[2]) not in text  # no path of the machine it was made on
    assert "stack_trace" not in text


@pytest.mark.parametrize("name", ["timm", "onnx", "hub"])
def test_an_encoder_with_other_features_is_never_written(
    resnet: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    compare = write_module._difference

    def with_an_error(encoder: Any, other: Any, card: Any) -> float:
        return compare(encoder, lambda x: 1.01 * other(x), card)

    monkeypatch.setattr(write_module, "_difference", with_an_error)
    out = tmp_path / {"timm": "a.safetensors", "onnx": "a.onnx", "hub": "a"}[name]
    with pytest.raises(CheckpointError, match=rf"features as {name} differ by 0\.01"):
        export_run(resnet, name=name, out=out)
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_gives_the_same_bytes(narrow: TrainedRun, tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    for folder in (one, two):
        export_run(narrow, name="safetensors", out=folder / "a.safetensors")
        export_run(narrow, name="hub", out=folder / "hub")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 6
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_a_file_is_an_encoder_again_with_the_preprocessing_of_its_run(
    narrow: TrainedRun, tmp_path: Path
) -> None:
    out = tmp_path / "encoder.safetensors"
    export_run(narrow, name="safetensors", out=out)
    pixels = torch.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).to(torch.uint8)
    x = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)).float()
    encoder = PretrainedEncoder.from_file(out)
    found = encoder.embed(pixels)
    assert torch.equal(encoder.embed(np.asarray(pixels)), found)
    floats = pixels / 255
    before = floats.clone()
    for wrong in (floats, pixels[0], pixels.numpy().astype(np.int64), pixels[..., :1]):
        with pytest.raises(DataError, match=r"expected \(B, H, W, 3\) of torch.uint8"):
            encoder.embed(wrong)
    assert torch.equal(floats, before)
    ours = _ours(narrow, x)
    assert float((found - ours).abs().max() / ours.abs().max()) <= CLOSE


def test_a_folder_for_the_hub_loads_by_the_hubs_own_class(
    narrow: TrainedRun, tmp_path: Path
) -> None:
    made = export_run(narrow, name="hub", out=tmp_path / "hub")
    assert {path.name for path in made.files} == {
        *("README.md", "card.json", "config.json", "model.safetensors")
    }
    assert made.card == json.loads((tmp_path / "hub" / "card.json").read_text())
    model = PretrainedEncoder.from_pretrained(tmp_path / "hub")
    ours = _ours(narrow, _x())
    assert float((model(_x()).detach() - ours).abs().max() / ours.abs().max()) <= CLOSE
    model.save_pretrained(tmp_path / "again")
    again = PretrainedEncoder.from_pretrained(tmp_path / "again")
    assert torch.equal(again(_x()), model(_x()))
    assert again.preprocessing == model.preprocessing


def test_the_model_card_holds_the_records_of_this_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = encoder_run(tmp_path / "run", step=8)
    of_run = {"epoch": 1, "seed": 0, "config": None}
    rows = [
        {"metric": "knn_accuracy", "value": 0.25, "of": "encoder"} | of_run,
        {"metric": "knn_accuracy", "value": 0.125, "of": "pixels"} | of_run | {"epoch": 0},
        {"metric": "linear_accuracy", "value": 0.75, "of": "encoder"} | of_run | {"epoch": 4},
    ]
    same = {"split": "test", "images_scored": 1000, "protocol": {}, "code": "", "versions": {}}
    same |= {"data": {"name": "mnist5k", "fingerprint": "f" * 64}, "device": "cpu", "threads": 1}
    lines = [json.dumps(row | same | {"wall_s": 1.0, "time": ""}) for row in rows]
    (run.path / "records.jsonl").write_text("\n".join(lines) + "\n")
    export_run(run, name="hub", out=tmp_path / "hub")
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    [result] = card.data.eval_results
    assert (result.metric_value, result.metric_name) == (0.25, "kNN, all labels")
    text = card.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "| kNN | 100 % | 1,000 test | 25.0 % | 12.5 % |" in text
    assert "75" not in text.partition("## Results")[2].partition("## How")[0]


@pytest.mark.parametrize(("channels", "given"), [(1, 3), (3, 3), (4, 4)])
def test_the_model_card_says_how_many_channels_go_in(
    tmp_path: Path, channels: int, given: int
) -> None:
    run = encoder_run(tmp_path / "run", **{"encoder.channels": channels, "bands": "all"})
    export_run(run, name="hub", out=tmp_path / "hub")
    text = (tmp_path / "hub" / "README.md").read_text()
    assert f"It turns images (B, {channels}, H, W) into" in text
    assert f"# (B, H, W, {given}) uint8" in text


def test_the_model_card_says_how_far_the_run_came(tmp_path: Path) -> None:
    run = encoder_run(tmp_path / "run", step=8)
    export_run(run, name="hub", out=tmp_path / "hub")
    card = json.loads((tmp_path / "hub" / "card.json").read_text())
    expected = run.info.extent(8)
    assert card["training"]["extent"]["decay_folds"] == pytest.approx(expected.folds)
    text = (tmp_path / "hub" / "README.md").read_text()
    assert ", 8 steps, " in text
    assert "the published run: 11.6" in text


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("cifar10", ["uoft-cs/cifar10"]),
        ("hf:me/birds/small", ["me/birds"]),
        ('["hf:me/birds", "/home/me/secret", "cifar100"]', ["me/birds", "uoft-cs/cifar100"]),
        ("/home/me/secret", None),
    ],
)
def test_the_model_card_names_the_data_sets_of_the_hub_alone(
    tmp_path: Path, spec: str, named: list[str] | None
) -> None:
    run = encoder_run(tmp_path / "run", data={"spec": spec})
    export_run(run, name="hub", out=tmp_path / "hub")
    assert ModelCard.load(tmp_path / "hub" / "README.md").data.datasets == named


def test_names_of_others_cannot_write_markup_into_the_card(tmp_path: Path) -> None:
    name = "<script>x</script>[a](b)\n# c"
    run = encoder_run(tmp_path / "run", data={"name": name})
    export_run(run, name="hub", out=tmp_path / "hub")
    text = (tmp_path / "hub" / "README.md").read_text()
    assert "<script" not in text.replace("\\<", "")
    assert "\n# c" not in text
    assert "[a](b)" not in text.replace("\\[", "").replace("\\]", "")


def test_what_a_run_is_stands_in_its_card(tmp_path: Path) -> None:
    run = encoder_run(
        tmp_path / "run", step=3, **{"stop_gradient": False, "predictor.enabled": False}
    )
    row = {"kind": "epoch", "epoch": 1, "step": 3, "loss": -1.0, "measures": {"z": {}}}
    verdict = {"state": "complete collapse", "reason": "all alike", "advice": "none"}
    with RunWriter.resume(run.path) as writer:
        writer.append([row | {"verdict": verdict}])
    said = run_condition(run)
    assert said == [
        "Ablation: trained without the stop-gradient.",
        "Ablation: trained without the predictor.",
        "Not finished: epoch 0 of 4, step 3 of 32 (the run is running).",
        "At epoch 1: complete collapse; all alike.",
    ]
    made = export_run(run, name="safetensors", out=tmp_path / "a.safetensors")
    assert made.card["condition"] == said


def test_the_model_card_names_the_precision_that_the_run_had(tmp_path: Path) -> None:
    run = encoder_run(tmp_path / "run")
    assert run.info.config.precision == "auto"
    run.info.environment["precision"] = "bf16"
    export_run(run, name="hub", out=tmp_path / "hub")
    assert ", seed 0, precision bf16\n" in (tmp_path / "hub" / "README.md").read_text()


def test_no_path_of_the_machine_is_handed_on(tmp_path: Path) -> None:
    spec = {"spec": str(tmp_path / "secret"), "init": {"from": "/home/me/a", "sha256": "0" * 64}}
    run = encoder_run(tmp_path / "run", data=spec)
    export_run(run, name="hub", out=tmp_path / "hub")
    for path in (tmp_path / "hub").iterdir():
        data = path.read_bytes()
        assert b"/home/me" not in data
        assert str(tmp_path).encode() not in data


def test_weights_that_do_not_belong_to_their_card_are_refused(
    narrow: TrainedRun, tmp_path: Path
) -> None:
    out = tmp_path / "encoder.safetensors"
    export_run(narrow, name="safetensors", out=out)
    tensors = load_file(out)
    tensors["bn1.bias"] += 1
    save_file(tensors, out)
    with pytest.raises(CheckpointError, match="does not match the sha256"):
        PretrainedEncoder.from_file(out)
    card_of(out).unlink()
    with pytest.raises(CheckpointError, match="is not part of an encoder"):
        PretrainedEncoder.from_file(out)


def test_a_config_of_others_cannot_ask_for_more_memory_than_its_weights_fill(
    narrow: TrainedRun, tmp_path: Path
) -> None:
    export_run(narrow, name="hub", out=tmp_path / "hub")
    edit(tmp_path / "hub" / "config.json", "encoder.width", 32)
    with pytest.raises(ConfigError, match="another shape"):
        PretrainedEncoder.from_pretrained(tmp_path / "hub")
    edit(tmp_path / "hub" / "config.json", "encoder.width", "wide")
    with pytest.raises(ConfigError, match=r"encoder\.width"):
        PretrainedEncoder.from_pretrained(tmp_path / "hub")


def test_two_exports_to_one_place_leave_the_whole_of_one(
    narrow: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one writes its weights after ours and before our card, or its folder before ours."""
    out, other = tmp_path / "e.safetensors", encoder_run(tmp_path / "other", seed=9)
    export_run(other, name="safetensors", out=tmp_path / "theirs.safetensors")
    theirs, written = (tmp_path / "theirs.safetensors").read_bytes(), []

    def write(path: Path, value: object) -> None:
        if not written:
            out.write_bytes(theirs)
        write_json(path, value)
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr("stopgrad.export.write.write_json", write)
        export_run(narrow, name="safetensors", out=out)
    assert len(written) == 2
    torch.testing.assert_close(PretrainedEncoder.from_file(out)(_x()), _ours(narrow, _x()))

    def first(path: Path) -> None:
        (tmp_path / "hub").mkdir(exist_ok=True)
        (tmp_path / "hub" / "theirs").touch()

    monkeypatch.setattr("stopgrad.export.write.sync_directory", first)
    with pytest.raises(ConfigError, match="hub exists"):
        export_run(narrow, name="hub", out=tmp_path / "hub")
    assert [path.name for path in (tmp_path / "hub").iterdir()] == ["theirs"]
    assert not list(tmp_path.glob(".hub-*"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--format", "onnx", "--out", "a.safetensors"), 2, "ends in .onnx"),
        (("--format", "safetensors", "--out", "a"), 2, "--out a.safetensors"),
        (("--format", "hub", "--out", "run"), 2, "run exists"),
        (("--format", "pickle", "--out", "a"), 2, "invalid choice"),
        (("--format", "timm", "--out", "a.safetensors"), 2, "safetensors, onnx, hub"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder_run(tmp_path / "run")
    assert main(["export", "run", *words]) == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("stopgrad: ")
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_terminal_says_what_the_run_is_and_how_to_load_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder_run(tmp_path / "run")
    out = tmp_path / "a.safetensors"
    assert (
        main(["export", str(tmp_path / "run"), "--format", "safetensors", "--out", str(out)]) == 0
    )
    printed = capsys.readouterr()
    assert "Not finished: epoch 0 of 4, step 3 of 32" in printed.err
    assert "gives the same features" in printed.err
    assert printed.out.splitlines()[-1] == f'model = PretrainedEncoder.from_file("{out}")'


@pytest.mark.parametrize(
    ("form", "out"), [("safetensors", 'made/it\'s "mine".safetensors'), ("hub", "made/hub")]
)
def test_the_lines_on_the_terminal_run_where_the_command_was_given(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    out: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder_run(tmp_path / "run")
    assert main(["export", "run", "--format", form, "--out", out]) == 0
    found: dict[str, Any] = {}
    exec("\n".join(capsys.readouterr().out.splitlines()), found)
    assert isinstance(found["model"], PretrainedEncoder)
    card = Path(out, "card.json") if form == "hub" else card_of(Path(out))
    assert "made" not in str(json.loads(card.read_text())["load"])  # it may be moved


def test_the_code_of_a_model_card_runs_beside_its_folder(
    narrow: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path('my "net" [1]#2')  # no character may be escaped as Markdown has it
    made = export_run(narrow, name="hub", out=out)
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    pixels = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    found: dict[str, Any] = {"pixels": pixels}
    exec(code, found)
    assert torch.equal(found["features"], PretrainedEncoder.from_pretrained(out).embed(pixels))
    assert repr(made).splitlines()[1:] == [f"    {line}" for line in made.lines[:-1]] + [
        f"    {made.lines[-1]}>"
    ]


def test_a_card_says_to_which_size_a_backbone_of_fixed_sizes_wants_images(
    tmp_path: Path, narrow: TrainedRun
) -> None:
    run = encoder_run(tmp_path / "run", **{"encoder.name": "timm:test_vit", "views.size": 32})
    vit, ours = describe(run)["preprocessing"], describe(narrow)["preprocessing"]
    assert vit["resize"].endswith(", then to 32 x 32 px, the only size that the backbone takes")
    assert "then to" not in ours["resize"]
