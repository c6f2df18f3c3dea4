"""Optional packages that read more kinds of images."""

from __future__ import annotations

import functools
import importlib.util

NAMES = {  # of modules, as pip installs them
    "tifffile": "'stopgrad[tiff]'",
    "pillow_heif": "'stopgrad[heic]'",
    "pydicom": "'stopgrad[dicom]'",
    "gdcm": "python-gdcm",
}


@functools.cache
def is_installed(module: str) -> bool:
    """Whether a module could be imported."""
    return importlib.util.find_spec(module) is not None


def installation(module: str) -> str:
    """The command that installs a module of `NAMES`."""
    return f"pip install {NAMES[module]}"


def would_help(reason: str) -> bool:
    """Whether a reason asks for a package that is installed by now."""
    return any(installation(name) in reason and is_installed(name) for name in NAMES)
