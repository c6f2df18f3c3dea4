"""`stopgrad import-weights`: a file of torch.save -> the tensors in it, as safetensors.

The one place that opens a pickle. `weights_only=True` runs no code of the file, classes of other
tools stand in as empty objects, and the reader is a process of its own whose memory is limited: a
file may ask for a few times its own size.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.errors import CheckpointError, StorageError, no_memory
from stopgrad.storage import as_text, check_ending, in_short, read_start, write_atomically

LARGEST = 8 << 30  # bytes of a file
RATIO = 2  # bytes of tensors for each byte of the file; tied weights are saved once
SPARE = 1 << 30  # bytes of memory besides those of the tensors
LONGEST = 600  # s
REFUSED = re.compile(r"(?:Unsupported|Trying|Can only)\b.*?(?=\. |\.?$)", re.MULTILINE)
ARCHIVE, PICKLE, SAFETENSORS = re.compile(b"PK"), re.compile(b"\x80"), re.compile(b".{8}{", re.S)
"""How such files begin: torch.save writes archives since 1.6, bare pickles before."""


class Imported(NamedTuple):
    """What an import wrote, and what it left out."""

    tensors: int
    left_out: list[str]  # entries without tensors of a network, such as `optimizer` and `epoch`


class Stub:
    """Stands in for a class or a function of another tool; keeps nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __new__(cls, *_: object, **__: object) -> Stub:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def import_weights(path: Path, out: Path, *, prefix: str = "") -> Imported:
    """Writes the tensors of a file of torch.save, or of a safetensors file, as safetensors.

    Args:
        path: The file: a state dict, or mappings that hold some.
        out: The file to write, replaced if it exists.
        prefix: Takes only the tensors whose names begin with it, and removes it.

    Raises:
        ConfigError: For an `out` that does not end in .safetensors.
        CheckpointError: For a file that is too large, damaged, hostile or without such tensors.
        StorageError: When the disk refuses.
    """
    check_ending(out, ".safetensors")
    path = path.resolve()
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist",
            expected="a file of torch.save, or a safetensors file",
            hint="check the path",
        )
    try:
        start = read_start(path, 9)
        size = path.stat().st_size
        if size > LARGEST:
            raise ValueError(f"has {size:,} bytes, more than {LARGEST:,}")
        if not any(kind.match(start) for kind in (ARCHIVE, PICKLE, SAFETENSORS)):
            raise ValueError("is not a file of torch.save")
        if ARCHIVE.match(start):
            _check_archive(path, size)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _refused(path, in_short(error)) from error
    words = [sys.executable, "-P", "-m", __name__, str(path), str(out), prefix]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired as error:
        raise _refused(path, f"took more than {LONGEST} s") from error
    if done.returncode == 0:
        return Imported(**json.loads(done.stdout))
    said = (done.stderr.strip().splitlines() or [f"the reader ended with {done.returncode}"])[-1]
    raise StorageError(said) if done.returncode == StorageError.exit_code else _refused(path, said)


def _check_archive(path: Path, size: int) -> None:
    """Refuses what torch.save never writes: compressed entries, and entries that overlap."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("has compressed entries, which torch.save never writes")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("has entries that are larger than the file")


def _refused(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{as_text(path)}: {as_text(reason)}",
        expected="a file of torch.save that holds a state dict of tensors",
        hint="load it with the tool that made it, and save its state_dict()",
    )


def _limit_memory(size: int) -> None:
    """Limits memory to what is in use, plus the file, two copies of its tensors and a margin."""
    with suppress(OSError, ValueError, ImportError):  # only Linux says what it has
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 3 * RATIO * size + SPARE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(path: Path) -> Any:
    """The contents of a file, with tensors mapped from it where its format allows that."""
    import torch
    from safetensors.torch import load_file
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    start = read_start(path, 9)
    if SAFETENSORS.match(start):
        return load_file(path)
    if not ARCHIVE.match(start):
        return torch.load(path, map_location="cpu", weights_only=True)
    names = get_unsafe_globals_in_checkpoint(str(path))
    with safe_globals([(Stub, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _tensors_in(values: Mapping[Any, Any], seen: set[int]) -> dict[str, Any]:
    """Every tensor below string keys, by its path; the key of an only mapping is left out.

    The tensors of an optimiser are below numbers.

    Raises:
        ValueError: For two tensors with one path.
    """
    import torch

    seen.add(id(values))
    found, inner = dict[str, Any](), dict[str, dict[str, Any]]()
    for key, value in values.items():
        if isinstance(key, str) and isinstance(value, torch.Tensor):
            found[key] = value
        elif isinstance(key, str) and isinstance(value, Mapping) and id(value) not in seen:
            inner[key] = _tensors_in(value, seen)
    inner = {key: tensors for key, tensors in inner.items() if tensors}
    if len(inner) == 1 and not found:
        return next(iter(inner.values()))
    for key, tensors in inner.items():
        for name, value in tensors.items():
            if f"{key}.{name}" in found:
                raise ValueError(f"holds {key}.{name} twice")
            found[f"{key}.{name}"] = value
    return found


def _is_plain(value: Any) -> bool:
    """Whether safetensors can hold a tensor."""
    import torch

    return bool(
        value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    )


def _convert(path: Path, out: Path, prefix: str) -> Imported:
    """The work of `import_weights`, in a process of its own.

    Raises:
        ValueError: For a file without tensors, or one that claims more bytes than it can hold.
    """
    from safetensors.torch import save

    size = path.stat().st_size
    _limit_memory(size)
    values = _read(path)
    if not isinstance(values, Mapping):
        raise ValueError("holds no state dict")
    found = _tensors_in(values, set())
    chosen = {name: value for name, value in found.items() if name.startswith(prefix)}
    plain = {name: value for name, value in chosen.items() if _is_plain(value)}
    if not plain:
        raise ValueError(f"holds no tensors{f' below {prefix}' if prefix else ''}")
    total = sum(value.numel() * value.element_size() for value in plain.values())
    if total > RATIO * size:
        raise ValueError(f"claims tensors of {total:,} bytes, more than {RATIO} times the file")
    tensors = {name: value.detach().clone().contiguous() for name, value in plain.items()}
    write_atomically(out, save({name.removeprefix(prefix): t for name, t in tensors.items()}))
    others = [str(key) for key in values if not _tensors_in({key: values[key]}, set())]
    return Imported(len(plain), [*others, *(chosen.keys() - plain.keys())])


def _main(path: str, out: str, prefix: str) -> int:
    try:
        sys.stdout.write(json.dumps(_convert(Path(path), Path(out), prefix)._asdict()))
    except StorageError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except Exception as error:  # whatever a hostile file can make a reader raise
        sys.stderr.write(f"{as_text(_reason(error))}\n")
        return 1
    return 0


def _reason(error: Exception) -> str:
    if no_memory(error):
        return "asks for more memory than its size explains"
    if "weights_only" in str(error):  # PyTorch's advice is to run the file's code
        found = REFUSED.search(str(error))
        return f"holds more than plain data{f' ({found[0]})' if found else ''}"
    return in_short(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
