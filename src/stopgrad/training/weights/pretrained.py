"""timm's pretrained weights by name -> tensors; safetensors from the Hub, through its own client.

timm would try a missing network for most of a minute and would open a pickle where there is no
safetensors file. So the file is fetched here and read with care; timm brings it to its model.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from stopgrad.errors import ConfigError, DataError, did_you_mean
from stopgrad.runs import decode_tensors, not_finite
from stopgrad.storage import as_text, in_short, read_file
from stopgrad.training.weights.file import refused

LARGEST = 8 << 30  # bytes of a file of weights
TIMEOUT = 15.0  # s for the first answer
FILE = "model.safetensors"

T = TypeVar("T")


def timm_tensors(name: str) -> dict[str, Tensor]:
    """The pretrained tensors of a timm model without its classifier.

    Args:
        name: With or without a tag, `resnet18` or `resnet18.a1_in1k`.

    Raises:
        ConfigError: For a name that timm has no weights for, with the nearest.
        DataError: When the Hub does not give them.
        CheckpointError: When the file is not safetensors or not finite.
    """
    timm = _timm(name)
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if not repository:
        raise _unknown(name, timm)
    path = _file(repository)
    try:
        tensors = decode_tensors(read_file(path, most=LARGEST))
    except (OSError, ValueError) as error:
        raise refused(path, in_short(error)) from error
    tensors = _without_classifier(timm, name, tensors, path)
    wrong = not_finite(tensors)
    if wrong:
        raise refused(path, wrong)
    return tensors


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"--init timm:{name} without timm",
            expected="timm to be installed",
            hint="pip install 'stopgrad[timm]'",
        ) from error
    if name not in timm.list_pretrained() and not timm.models.is_model_pretrained(name):
        raise _unknown(name, timm)
    return timm


def _unknown(name: str, timm: Any) -> ConfigError:
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
    """timm's own way from its file to its model, without the classes of its training."""
    overlay = {"state_dict": tensors}
    try:
        model = timm.create_model(
            name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
        )
    except (RuntimeError, KeyError, ValueError) as error:
        raise refused(path, f"does not fit timm's {name} ({in_short(error)})") from error
    return {key: value.detach() for key, value in model.state_dict().items()}


def _file(repository: str) -> Path:
    """The file of a repository: the copy that is here, else the newest of the Hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalEntryNotFoundError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        # Resolved, as the client's cache holds links to its own files.
        return Path(api.hf_hub_download(repository, FILE, local_files_only=True)).resolve()
    except LocalEntryNotFoundError:
        pass
    # Asked first, because a download tries a missing network again and again.
    _asking(lambda: api.model_info(repository, timeout=TIMEOUT), repository)
    return Path(_asking(lambda: api.hf_hub_download(repository, FILE), repository)).resolve()


def _asking(ask: Callable[[], T], repository: str) -> T:
    # The client raises errors of several libraries, which have no common root but Exception.
    try:
        return ask()
    except Exception as error:
        reason = as_text((str(error).strip().splitlines() or [type(error).__name__])[0])
        raise DataError(
            f"the Hub does not give {FILE} of {repository} ({reason})",
            expected="a connection to the Hub, or weights downloaded before",
            hint="check the network and HF_ENDPOINT, or give --init a run or a file",
        ) from error
