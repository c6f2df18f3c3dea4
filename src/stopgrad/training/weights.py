"""`--init RUN|FILE|timm:NAME` -> the tensors that an encoder starts from.

Whatever the source, the tensors are checked against the encoder that will hold them, by name,
shape and type, before they are read, and are finite. Nothing is unpickled.

Without a network timm would keep trying for most of a minute, and without a safetensors file it
would open a pickle. So its file is fetched here, through the Hub's own client, and read with care.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stopgrad.config import OWN, TIMM, EncoderConfig, Stem, torch_generator
from stopgrad.errors import CheckpointError, ConfigError, DataError, did_you_mean
from stopgrad.images import checked_answers
from stopgrad.method import RESNETS, build_encoder
from stopgrad.runs import (
    PICKLED,
    decode_tensors,
    encoder_tensors,
    header_bytes,
    header_tensors,
    load_last,
    misfit,
    not_finite,
    read_run,
    tensors_sha256,
)
from stopgrad.storage import (
    as_text,
    first_line,
    in_short,
    read_file,
    read_json,
    read_start,
    user_path,
)
from stopgrad.training.naming import Naming, naming_of

LARGEST = 8 << 30  # bytes of a file of timm's weights
TIMEOUT = 15.0  # s for the Hub's first answer
HUB_FILE = "model.safetensors"
WIDEST = 1024  # channels of the first layer, at most, with which a ResNet is looked for
COUNTER = "num_batches_tracked"  # of a BN: decides nothing, and old files lack it

T = TypeVar("T")


class Weights(NamedTuple):
    """What an encoder starts from."""

    tensors: dict[str, Tensor]  # by the encoder's own names
    source: str  # timm:NAME, or an absolute path
    sha256: str  # over names, types, shapes and bytes, whatever file they came from
    remark: str = ""  # where they were found in a file, and what else it holds

    def card(self) -> dict[str, str]:
        """What a run records about them; runs whose sha256 differ are different runs."""
        return {"from": self.source, "sha256": self.sha256}


def read_weights(spec: str, config: EncoderConfig) -> Weights:
    """The weights that a spec names, which must be those of this encoder.

    Args:
        spec: A run directory, a safetensors file, a folder for the Hub, timm:NAME, or the name of
            the encoder itself, given in Python, which starts from the weights that it has.
        config: The encoder that will start from them.

    Raises:
        ConfigError: For a spec that names nothing, or weights of another encoder.
        CheckpointError: For files that are damaged or not to be trusted.
        DataError: When the Hub does not give timm's weights.
    """
    if "\0" in spec:
        raise _absent(spec)
    wanted = encoder_tensors(config)
    if spec.startswith(OWN):
        tensors = dict(build_encoder(config, torch_generator(0, "encoder")).state_dict())
        return Weights(tensors, spec, tensors_sha256(tensors))
    path, remark = user_path(spec).resolve(), ""
    if (path / HUB_FILE).is_file() and not (path / "manifest.json").exists():
        path /= HUB_FILE  # of a folder for the Hub, which is no checkpoint of a run
    source = spec if spec.startswith(TIMM) else str(path)
    if spec.startswith(TIMM):
        tensors = _timm_tensors(spec.removeprefix(TIMM))
    elif path.is_dir():
        tensors = _run_tensors(path)
    elif path.exists():
        tensors, remark = _file_tensors(path, wanted, config)
    else:
        raise _absent(spec)
    refuse_misfit(tensors, wanted, source=spec, hint=_hint(config, of=path))
    return Weights(tensors, source, tensors_sha256(tensors), remark)


def _absent(spec: str) -> ConfigError:
    return ConfigError(
        f"--init {spec[:200]!r} does not exist",
        expected="a run directory, a safetensors file or timm:NAME",
        hint="check the path",
    )


def _run_tensors(path: Path) -> dict[str, Tensor]:
    """The encoder of a run of any kind, at its newest good checkpoint."""
    prefix, model = "encoder.", load_last(path).model
    return {k.removeprefix(prefix): v for k, v in model.items() if k.startswith(prefix)}


def _hint(config: EncoderConfig, *, of: Path | None = None) -> str:
    """The flags that would fit, if a run says which; else how to give them."""
    if of is not None and (of / "config.json").is_file():
        return f"take the run's own: {_flags(read_run(of).config.encoder, asked=config)}"
    return (
        f"give --encoder.name, --encoder.stem, --encoder.width and --encoder.channels of the "
        f"weights (here {config.name}, {config.stem}, {config.width:g}, {config.channels}; timm's "
        f"ResNets have the large stem)"
    )


def _flags(encoder: EncoderConfig, *, asked: EncoderConfig) -> str:
    """The flags of an encoder; its channels only if they differ from those asked for."""
    flags = f"--encoder.name {encoder.name} --encoder.stem {encoder.stem}"
    channels = f" --encoder.channels {encoder.channels}"
    return (
        f"{flags} --encoder.width {encoder.width:g}"
        f"{channels if encoder.channels != asked.channels else ''}"
    )


def read_tensors(path: Path, wanted: Mapping[str, Tensor], *, hint: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which must be exactly those wanted.

    Args:
        path: The file; a card of ours beside it must agree with its bytes.
        wanted: Names, shapes and types, on any device.
        hint: What to do when the file holds other tensors.

    Raises:
        CheckpointError: When it is not a safetensors file, damaged or not finite.
        ConfigError: When it holds other tensors, with the first of them.
    """
    refuse_misfit(_read_header(path), wanted, source=str(path), hint=hint)
    return _read_part(path, {name: name for name in wanted})


def _file_tensors(
    path: Path, wanted: Mapping[str, Tensor], config: EncoderConfig
) -> tuple[dict[str, Tensor], str]:
    """The encoder in a safetensors file of any tool, and a remark on the rest of the file."""
    found = _read_header(path)
    naming = naming_of(found, wanted)
    placed = _placed(found, naming, wanted)
    if misfit(placed, wanted):
        hint = _flags_that_fit(found, config) or _hint(config)
        refuse_misfit(placed, wanted, source=str(path), hint=hint)
    tensors = {own: _as_float(value) for own, value in _read_part(path, naming.names).items()}
    for name in wanted.keys() - tensors.keys():  # counters
        tensors[name] = torch.zeros_like(wanted[name], device="cpu")
    return tensors, naming.remark


def _placed(
    found: Mapping[str, Tensor], naming: Naming, wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A file's tensors for the encoder, by the encoder's names; counters may be absent."""
    own = {own: _as_float(found[name]) for own, name in naming.names.items()}
    strange = {name: found[name] for name in naming.strange}
    return {key: value for key, value in wanted.items() if COUNTER in key} | own | strange


def _flags_that_fit(found: Mapping[str, Tensor], config: EncoderConfig) -> str:
    """The flags of the encoder that a file holds, if it is a ResNet of ours; else empty."""
    for name, shape in RESNETS.items():
        naming = naming_of(found, encoder_tensors(EncoderConfig(name=name)))
        first = naming.names.get("conv1.weight")
        if first is None or found[first].dim() != 4 or not 0 < len(found[first]) <= WIDEST:
            return ""
        _, channels, kernel, _ = found[first].shape
        stem: Stem = "large" if kernel == 7 else "half" if config.stem == "half" else "small"
        width = len(found[first]) / shape.channels[0]
        fitting = EncoderConfig(name=name, stem=stem, width=width, channels=channels)
        wanted = encoder_tensors(fitting)
        if not misfit(_placed(found, naming, wanted), wanted):
            return f"they fit: {_flags(fitting, asked=config)}"
    return ""


def _as_float(value: Tensor) -> Tensor:
    """Half precision as float32, which holds it exactly."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _read_header(path: Path) -> dict[str, Tensor]:
    """Names, shapes and types of a safetensors file, on the meta device."""
    try:
        return header_tensors(read_start(path, header_bytes(read_start(path, 8))))
    except (OSError, ValueError) as error:
        raise _refused(path, in_short(error)) from error


def _read_part(path: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of these names; only they are read, so no more memory is taken than they fill."""
    try:
        _check_card(path)
        with safe_open(path, framework="pt") as file:
            tensors = {own: file.get_tensor(name) for own, name in names.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise _refused(path, in_short(error)) from error
    wrong = not_finite(tensors)
    if wrong:
        raise _refused(path, wrong)
    return tensors


def refuse_misfit(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, source: str, hint: str
) -> None:
    """Refuses tensors that are not those wanted.

    Raises:
        ConfigError: With the first names that are missing, unknown or of another shape.
    """
    wrong = misfit(found, wanted)
    if not wrong:
        return
    shapes = (
        f"{key[:80]!a} is {_shape(found[key])}, not {_shape(wanted[key])}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    )
    first = next(shapes, "")
    raise ConfigError(
        f"{as_text(source)} does not fit the encoder ({wrong}{'; ' if first else ''}{first})",
        expected="the tensors of the requested encoder",
        hint=hint,
    )


def card_of(path: Path) -> Path:
    """The path of the card of a file of weights: FILE.json next to it."""
    return path.with_name(f"{path.name}.json")


def _refused(path: Path, reason: str) -> CheckpointError:
    """The error for a file that is not to be trusted."""
    hint = (
        "make one of a run with: stopgrad export RUN --format safetensors --out FILE, of a .pth "
        "file of another tool with: stopgrad import-weights FILE.pth --out FILE"
    )
    if PICKLED in reason:
        made = quote(str(path.with_suffix(".safetensors")))
        hint = f"make one with: stopgrad import-weights {quote(str(path))} --out {made}"
    return CheckpointError(
        f"{as_text(path)}: {as_text(reason)}",
        expected="a whole safetensors file of finite weights",
        hint=hint,
    )


def _check_card(path: Path) -> None:
    """Compares the bytes with the card that an export puts beside them."""
    card = card_of(path)
    if not card.is_file():
        return
    values = read_json(card)
    promised = values.get("sha256") if isinstance(values, dict) else None
    if promised is None:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != promised:
            raise ValueError(f"does not match the sha256 in {card.name}")


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "one number"


def _timm_tensors(name: str) -> dict[str, Tensor]:
    """The pretrained tensors of a timm model without its classifier.

    Args:
        name: With or without a tag, `resnet18` or `resnet18.a1_in1k`.

    Raises:
        ConfigError: For a name that timm has no weights for, with the nearest.
        DataError: When the Hub does not give them.
        CheckpointError: When the file is not safetensors or not finite.
    """
    timm = _timm_with(name)
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if not repository:
        raise _unknown_model(name, timm)
    path = _hub_file(repository)
    try:
        tensors = decode_tensors(read_file(path, most=LARGEST))
    except (OSError, ValueError) as error:
        raise _refused(path, in_short(error)) from error
    tensors = _without_classifier(timm, name, tensors, path)
    wrong = not_finite(tensors)
    if wrong:
        raise _refused(path, wrong)
    return tensors


def _timm_with(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"--init timm:{name} without timm",
            expected="timm to be installed",
            hint="pip install 'stopgrad[timm]'",
        ) from error
    if name not in timm.list_pretrained() and not timm.models.is_model_pretrained(name):
        raise _unknown_model(name, timm)
    return timm


def _unknown_model(name: str, timm: Any) -> ConfigError:
    known = timm.list_pretrained()
    if "." not in name:  # asked for without a tag
        known = list(dict.fromkeys(tagged.partition(".")[0] for tagged in known))
    return ConfigError(
        f"--init timm:{name[:80]}{did_you_mean(name[:80], known, most=3)}",
        expected="a model of timm.list_pretrained()",
        hint="see timm.list_pretrained() for the names that have weights",
    )


def _without_classifier(
    timm: Any, name: str, tensors: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tensors as timm itself loads them from its file, without its classifier."""
    overlay = {"state_dict": tensors}
    try:
        model = timm.create_model(
            name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
        )
    except (RuntimeError, KeyError, ValueError) as error:
        raise _refused(path, f"does not fit timm's {name} ({in_short(error)})") from error
    return {key: value.detach() for key, value in model.state_dict().items()}


def _hub_file(repository: str) -> Path:
    """The file of a repository: the local copy if there is one, else the newest of the Hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalEntryNotFoundError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        # Resolved, as the client's cache holds links to its own files.
        return Path(api.hf_hub_download(repository, HUB_FILE, local_files_only=True)).resolve()
    except LocalEntryNotFoundError:
        pass
    # Asked first, because without a network a download retries again and again.
    _asking(lambda: api.model_info(repository, timeout=TIMEOUT), repository)
    return Path(_asking(lambda: api.hf_hub_download(repository, HUB_FILE), repository)).resolve()


def _asking(ask: Callable[[], T], repository: str) -> T:
    # The client raises errors of several libraries, which have no common root but Exception.
    try:
        with checked_answers():
            return ask()
    except DataError:
        raise
    except Exception as error:
        reason = as_text(first_line(error))
        raise DataError(
            f"the Hub did not provide {HUB_FILE} of {repository} ({reason})",
            expected="a connection to the Hub, or weights downloaded before",
            hint="check the network and HF_ENDPOINT, or give --init a run or a file",
        ) from error
