"""`--init RUN|FILE|timm:NAME` -> the tensors that an encoder starts from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from stopgrad.config import EncoderConfig
from stopgrad.errors import ConfigError
from stopgrad.runs import encoder_tensors, load_checkpoint, read_run, tensors_sha256
from stopgrad.training.weights.file import read_tensors, refuse_misfit
from stopgrad.training.weights.pretrained import timm_tensors

TIMM = "timm:"


class Weights(NamedTuple):
    """What an encoder starts from."""

    tensors: dict[str, Tensor]  # by the encoder's own names
    source: str  # timm:NAME, or an absolute path
    sha256: str  # over names, types, shapes and bytes, whatever file they came from

    def card(self) -> dict[str, str]:
        """What a run notes of them; two runs with another sha256 are two runs."""
        return {"from": self.source, "sha256": self.sha256}


def read_weights(spec: str, config: EncoderConfig) -> Weights:
    """The weights that a spec names, which must be those of this encoder.

    Args:
        spec: A run directory, a safetensors file, or timm:NAME.
        config: The encoder that will start from them.

    Raises:
        ConfigError: For a spec that names nothing, or weights of another encoder.
        CheckpointError: For files that are damaged or not to be trusted.
        DataError: When the Hub does not give timm's weights.
    """
    if "\0" in spec:
        raise _absent(spec)
    wanted = encoder_tensors(config)
    source = spec if spec.startswith(TIMM) else str(Path(spec).expanduser().resolve())
    path = Path(source)
    if spec.startswith(TIMM):
        tensors = timm_tensors(spec.removeprefix(TIMM))
    elif path.is_dir():
        tensors = _run_tensors(path)
    elif path.exists():
        tensors = read_tensors(path, wanted, hint=_hint(config))
    else:
        raise _absent(spec)
    refuse_misfit(tensors, wanted, source=spec, hint=_hint(config, of=path))
    return Weights(tensors, source, tensors_sha256(tensors))


def _absent(spec: str) -> ConfigError:
    return ConfigError(
        f"--init {spec[:200]!r}, which is not there",
        expected="a run directory, a safetensors file or timm:NAME",
        hint="check the path",
    )


def _run_tensors(path: Path) -> dict[str, Tensor]:
    """The encoder of a run of any kind, at its newest good checkpoint."""
    prefix, model = "encoder.", load_checkpoint(path).model
    return {k.removeprefix(prefix): v for k, v in model.items() if k.startswith(prefix)}


def _hint(config: EncoderConfig, *, of: Path | None = None) -> str:
    """The flags that would fit, where a run says which."""
    if of is not None and (of / "config.json").is_file():
        own = read_run(of).config.encoder
        return (
            f"take the run's own: --encoder.name {own.name} --encoder.stem {own.stem} "
            f"--encoder.width {own.width:g}"
        )
    return (
        f"give --encoder.name, --encoder.stem and --encoder.width of the weights (here "
        f"{config.name}, {config.stem}, {config.width:g}; timm's ResNets have the large stem)"
    )
