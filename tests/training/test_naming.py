"""Claims about weights of other tools: prefixes, heads and second networks in a state dict."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from stopgrad.config import EncoderConfig, preset, torch_generator
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.method import build_encoder
from stopgrad.training import read_weights
from stopgrad.training.weights import Weights
from tests.inputs import row

StateDict = dict[str, torch.Tensor]
TINY = preset("tiny").encoder
RESNET18 = EncoderConfig(name="resnet18", stem="large")
HEAD = {"fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}
PLACES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def _encoder(config: EncoderConfig = TINY, *, seed: int = 0) -> StateDict:
    return dict(build_encoder(config, torch_generator(seed, "x")).state_dict())


def _below(prefix: str, values: StateDict) -> StateDict:
    return {f"{prefix}{key}": value.clone() for key, value in values.items()}


def _numbered(values: StateDict) -> StateDict:
    """As nn.Sequential(*list(resnet.children())) calls them."""
    parts = ((key.partition("."), value) for key, value in values.items())
    return {f"{PLACES[first]}.{rest}": value for (first, _, rest), value in parts}


def _read(folder: Path, values: StateDict, config: EncoderConfig = TINY) -> Weights:
    save_file(values, folder / "weights.safetensors")
    return read_weights(str(folder / "weights.safetensors"), config)


def _same(found: StateDict, wanted: StateDict) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in found)


_input = functools.partial(row, kind="weights")


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        _input("keys with the encoder's own names", "read", lambda e: e, ""),
        *(
            _input(
                f"a prefix {prefix}*",
                "read; the prefix is reported",
                lambda e, prefix=prefix: _below(prefix, e),
                f"found as {prefix}*",
            )
            for prefix in (
                *("module.", "encoder.", "module.encoder.", "backbone.", "student.backbone."),
                *("model.base.net.f.",),
            )
        ),
        _input(
            "a classifier beside the encoder",
            "the classifier is left out and listed",
            lambda e: e | HEAD,
            "2 other tensors left out: fc (2)",
        ),
        _input(
            "SimSiam's projector and predictor beside the encoder",
            "left out and listed",
            lambda e: (
                _below("module.encoder.", e | HEAD) | {"module.predictor.0.bias": HEAD["fc.bias"]}
            ),
            "found as module.encoder.*; 3 other tensors left out: module.encoder.fc (2), "
            "module.predictor (1)",
        ),
        _input(
            "a network and its moving average (MoCo, DINO, BYOL)",
            "the network is read; its average is left out and listed",
            lambda e: (
                _below("teacher.backbone.", _encoder(seed=9)) | _below("student.backbone.", e)
            ),
            "found as student.backbone.*; 54 other tensors left out: teacher (54)",
        ),
        _input(
            "a lightly backbone, whose layers are named by number",
            "read",
            lambda e: _below("backbone.", _numbered(e)),
            "found as backbone.*",
        ),
        _input(
            "no num_batches_tracked (files from before 2018)",
            "read; the counters start at 0",
            lambda e: {k: v for k, v in e.items() if "num_batches" not in k},
            "",
        ),
    ],
)
def test_the_encoder_is_found_and_what_is_left_out_is_named(
    tmp_path: Path, change: Callable[[StateDict], StateDict], remark: str
) -> None:
    encoder = _encoder()
    found = _read(tmp_path, change(encoder))
    assert _same(found.tensors, encoder)
    assert found.remark == remark


@pytest.mark.input(kind="weights", what="float16 or bfloat16", happens="read as float32")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in _encoder().items()}
    found = _read(tmp_path, half).tensors
    assert found["conv1.weight"].dtype == torch.float32
    assert _same({k: v.to(half[k].dtype) for k, v in found.items()}, half)


@pytest.mark.parametrize(
    "model",
    [
        _input("a torchvision ResNet", "read without its classifier", torchvision.models.resnet18),
        _input(
            "a timm ResNet", "read without its classifier", lambda: timm.create_model("resnet18")
        ),
    ],
)
def test_a_network_of_another_library_loses_its_classifier_alone(
    tmp_path: Path, model: Callable[[], torch.nn.Module]
) -> None:
    values = model().state_dict()
    found = _read(tmp_path, values, RESNET18)
    assert values.keys() - found.tensors.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, values[key]) for key, value in found.tensors.items())
    assert found.remark == "2 other tensors left out: fc (2)"


def test_a_classifier_of_timm_below_a_head_that_stays_is_left_out(tmp_path: Path) -> None:
    """ConvNeXt keeps `head.norm`; `head.fc` is its classifier."""
    values = timm.create_model("convnext_atto").state_dict()
    found = _read(tmp_path, values, EncoderConfig(name="timm:convnext_atto"))
    assert values.keys() - found.tensors.keys() == {"head.fc.weight", "head.fc.bias"}


def test_a_deeper_network_is_no_encoder_with_a_head(tmp_path: Path) -> None:
    """All tensors of cifar_resnet8 are in cifar_resnet14 too, in their shapes."""
    deeper = _encoder(EncoderConfig(name="cifar_resnet14", stem="half"))
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, _below("module.", deeper))
    assert "unknown: 'module.layer1.1.bn1.bias', " in str(caught.value)
    assert " and 33 more" in str(caught.value)
    assert str(caught.value).endswith(
        "; they fit: --encoder.name cifar_resnet14 --encoder.stem half --encoder.width 1"
    )


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        (EncoderConfig(name="resnet50", stem="large"), "resnet50 --encoder.stem large"),
        (EncoderConfig(name="resnet18", width=0.5), "resnet18 --encoder.stem half"),
        (
            EncoderConfig(name="resnet18", stem="large", channels=1),
            "resnet18 --encoder.stem large --encoder.width 1 --encoder.channels 1$",
        ),
    ],
)
@pytest.mark.input(
    kind="weights",
    what="weights of a different ResNet than requested",
    happens="refused; the error gives the flags that fit",
)
def test_the_flags_of_another_resnet_are_named(
    tmp_path: Path, config: EncoderConfig, flags: str
) -> None:
    with pytest.raises(ConfigError, match=f"they fit: --encoder.name {flags}"):
        _read(tmp_path, _below("module.encoder_q.", _encoder(config)))


@pytest.mark.input(
    kind="weights",
    what="keys that do not fit",
    happens="refused; the error lists the first and counts the rest",
)
def test_keys_that_do_not_fit_are_named_and_counted(tmp_path: Path) -> None:
    part = {k: v for k, v in _encoder().items() if not k.startswith("layer3")}
    with pytest.raises(ConfigError, match=r"missing: 'layer3.0.bn1.bias', .* and 12 more"):
        _read(tmp_path, _below("module.", part))


def test_two_networks_that_fit_are_not_chosen_between(tmp_path: Path) -> None:
    both = _below("one.", _encoder()) | _below("two.", _encoder(seed=1))
    with pytest.raises(ConfigError, match=r"2 networks in the file fit: one\., two\.") as caught:
        _read(tmp_path, both)
    assert "import-weights FILE --prefix PREFIX" in str(caught.value)


def test_only_what_is_wanted_must_be_finite_and_is_read(tmp_path: Path) -> None:
    encoder = _encoder()
    assert _same(_read(tmp_path, encoder | {"queue": torch.tensor([torch.nan])}).tensors, encoder)
    with pytest.raises(CheckpointError, match=r"'conv1\.weight' is not finite"):
        _read(tmp_path, encoder | {"conv1.weight": torch.full((16, 3, 3, 3), torch.inf)})


@pytest.mark.input(
    kind="weights", what="a folder exported for the Hub", happens="its model.safetensors is read"
)
def test_a_folder_for_the_hub_is_read(tmp_path: Path) -> None:
    encoder = _encoder()
    save_file(encoder, tmp_path / "model.safetensors")
    found = read_weights(str(tmp_path), TINY)
    assert _same(found.tensors, encoder)
    assert found.source == str(tmp_path / "model.safetensors")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is a checkpoint; .* name the run"):
        read_weights(str(tmp_path), TINY)
