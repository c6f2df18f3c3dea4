"""Endings and first bytes of files -> the kind of image that they are, if any.

And names of files -> the kind of file of many images that they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from stopgrad.images import packages
from stopgrad.storage import first_line, read_start


def _set(endings: str) -> frozenset[str]:
    return frozenset(f".{ending}" for ending in endings.split())


SUFFIXES = _set(
    "apng avif bmp gif j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo pbm pgm png pnm ppm tif tiff"
    " webp"
)
# Images that need an optional package: its module.
HEIC, DICOM = (".heic", ".heif", ".hif"), (".dcm", ".dicom")
EXTRAS = dict.fromkeys(HEIC, "pillow_heif") | dict.fromkeys(DICOM, "pydicom")
UNREAD = _set(  # images that nothing here reads
    "3fr arw cr2 cr3 crw dng iiq nef nrw orf pef raf raw rw2 rwl sr2 srf x3f"  # of cameras
    " ai emf eps kra psb psd svg svgz wmf xcf"  # drawings
    " czi fit fits fts lif mha mhd mrc mrxs nd2 ndpi nii nrrd oib oif scn svs vsi"  # of instruments
    " bpg cur dds djvu exr flif hdr icns ico jxl jxr pcx qoi ras sgi tga wdp xbm xpm"
)
VIDEOS = _set("3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv vob webm wmv")
TABLES = _set("csv tsv jsonl ndjson")
OTHERS = _set(  # not images: such files need not be opened to tell
    "bib c cfg cpp css doc docx h htm html ini ipynb js json log m md odt pdf ppt pptx py pyc r rst"
    " rtf sh bat tex toml txt xml xmp yaml yml aae kml geojson shp dbf prj ods xls xlsx url webloc"
    " lnk arrow feather parquet db sqlite lmdb mdb h5 hdf5 mat npy npz pkl pickle pt pth ckpt onnx"
    " safetensors tfrecord wav mp3 flac md5 sha1 sha256 lock tmp"
    " part thm exe dll so"
)
PACKED = _set("zip tar gz tgz bz2 tbz2 xz txz zst 7z rar")
# Files that hold many images: arrays, by patterns of their names; archives; and tables.
ARRAYS = {
    "npy": r"\.npy$",
    "npz": r"\.npz$",
    "hdf5": r"\.(h5|hdf5?|he5)$",
    "mat": r"\.mat$",
    "idx": r"idx\d(-\w+)?(\.gz)?$",
    "cifar": r"^(data_batch_\d|test_batch|train|test)\.bin$",
    "stl": r"_[Xy]\.bin$",
}
ZIPS = (".zip",)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
PARQUET = (".parquet", ".arrow")
# The first bytes of each kind of image, by the ending that it should have.
KINDS = {
    ".dcm": rb".{128}DICM",  # first, as a TIFF may begin before it
    ".png": rb"\x89PNG\r\n\x1a\n",
    ".jpg": rb"\xff\xd8\xff",
    ".gif": rb"GIF8[79]a",
    ".tif": rb"II[*+]\0|MM\0[*+]",
    ".jp2": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    ".webp": rb"RIFF.{4}WEBP",
    ".avif": rb".{4}ftyp(.{4,40})?avi[fs]",
    ".heic": rb".{4}ftyp(hei|hev|mif1|msf1)",
    ".bmp": rb"BM.{12}[\x0c\x28\x34\x38\x6c\x7c]\0\0\0",
    ".ppm": rb"P[1-6]\s[\s#\d]",
}
FIRST_BYTES = 256  # enough to recognise each of them
POINTER = b"version https://git-lfs"  # begins what Git leaves in place of a large file
UNFETCHED = "a pointer of Git LFS: git lfs pull fetches the file"
# The classes of DICOM objects without pixels, by what follows 1.2.840.10008 (PS3.4, Table B.5-1):
# directories, waveforms, presentation states, measurements, reports, documents, protocols, plans
# and records of radiotherapy; raw data, registrations and surfaces; mappings of values.
NO_PIXELS = re.compile(
    rb".{128}DICM.*?\x02\0\x02\0UI..1\.2\.840\.10008\.(1\.3\.10|5\.1\.4\.1\.1\."
    rb"((9|11|7[89]|88|104|20[01]|481\.([3-9]|1\d))(\.[\d.]+)?|66(\.[12356])?|67))(?![\d.])",
    re.DOTALL,
)


def ending_of(name: str) -> str:
    """The ending in lower case; "" if what follows the last dot is not one, as in `scan.001`."""
    name = name.lower()
    stem, _, last = (name[:-3] if name.endswith(".nii.gz") else name).rpartition(".")
    return _ending(last) if stem else ""


@functools.lru_cache(1024)
def _ending(last: str) -> str:
    return f".{last}" if re.fullmatch(r"(?=[^a-z]*[a-z])[a-z0-9_~!-]{1,12}", last) else ""


def names_image(path: str) -> bool:
    """Whether a path has the ending of an image file."""
    return os.path.splitext(path)[1].lower() in (*SUFFIXES, *EXTRAS)


def are_image_files(paths: Iterable[str]) -> bool:
    """Whether all of these have the ending of an image file."""
    return all(map(names_image, paths))


def holds_many(name: str) -> bool:
    """Whether a file of this name may hold many images."""
    if names_image(name):
        return False
    return bool(array_kind(name) or archive_ending(name)) or name.lower().endswith(PARQUET)


def array_kind(name: str) -> str:
    """The kind of the file of arrays that has this name, one of `ARRAYS`; "" for all others."""
    found = (kind for kind, of in ARRAYS.items() if re.search(of, name, re.IGNORECASE))
    return next(found, "")


def archive_ending(name: str) -> str:
    """The longest ending of an archive that a name has; "" for all other files."""
    lower = name.lower()
    return max((e for e in (*ZIPS, *TARS) if lower.endswith(e)), key=len, default="")


def is_read(ending: str) -> bool:
    """Whether files with this ending are read as images."""
    return ending in SUFFIXES or (ending in EXTRAS and packages.is_installed(EXTRAS[ending]))


def is_image(ending: str) -> bool:
    """Whether an ending is that of an image, read or not."""
    return ending in SUFFIXES or ending in EXTRAS or ending in UNREAD


def why_not_read(ending: str) -> str:
    """Advice for images and videos that are not read; "" for all other endings."""
    if ending in EXTRAS:
        return f"{ending} needs: {packages.installation(EXTRAS[ending])}"
    if ending in VIDEOS:
        return f"{ending} is a video: save its frames as PNG or JPEG"
    return f"{ending} is not read: convert to PNG" if ending in UNREAD else ""


def holds_no_pixels(start: bytes) -> bool:
    """Whether a DICOM file with these first bytes is a report, a plan or the like."""
    return NO_PIXELS.match(start) is not None


def why_broken(path: Path, error: Exception) -> str:
    """Why a file cannot be read: the first line of the error, unless Git has not fetched it."""
    with contextlib.suppress(OSError):
        if read_start(path, len(POINTER)) == POINTER:
            return UNFETCHED
    return first_line(error)


def kind_of(start: bytes) -> str:
    """The ending that a file should have by its first bytes; "" if they are not an image's."""
    matching = (ending for ending, kind in KINDS.items() if re.match(kind, start, re.DOTALL))
    return next(matching, "")
