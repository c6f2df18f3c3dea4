"""Files that hold many images: arrays, archives, shards; a DICOM file; what was read of them."""

import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pydicom.dataset import Dataset as Dicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from scipy.io import savemat

from stopgrad.images import Dataset
from tests.images.factories import png

CHANCE = np.random.default_rng(0)
COLOUR = CHANCE.integers(0, 256, (6, 10, 12, 3), np.uint8)  # (N, H, W, 3), H and W differ
GRAY = CHANCE.integers(0, 256, (6, 9, 11), np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])
PIXELS = np.random.default_rng(2).integers(0, 256, (8, 8, 8, 3), np.uint8)


def saved(path: Path, **arrays: Any) -> str:
    """A file of these arrays, of the kind that its ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".npz":
            np.savez_compressed(path, **arrays)
        case ".h5":
            with h5py.File(path, "w") as file:
                for name, array in arrays.items():
                    file.create_dataset(name, data=array, compression="gzip")
        case ".mat":
            savemat(path, arrays, do_compression=True)
    return str(path)


def idx(array: np.ndarray) -> bytes:
    """A file of MNIST's kind."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def npy(array: np.ndarray) -> bytes:
    """A file of NumPy's."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def put_cifar(folder: Path) -> None:
    """The six files of CIFAR-10's binary version, in short."""
    planes = np.repeat(np.arange(6, dtype=np.uint8), 3072).reshape(6, 3072)
    rows = np.concatenate([LABELS[:, None].astype(np.uint8), planes], axis=1)
    for name, part in (
        ("data_batch_1", rows[:2]),
        ("data_batch_2", rows[2:4]),
        ("test_batch", rows[4:]),
    ):
        (folder / f"{name}.bin").write_bytes(part.tobytes())
    (folder / "batches.meta.txt").write_text("cat\ndog\nfrog\n\n")
    (folder / "readme.html").write_text("no array")


def zipped(folder: Path, to: Path, *, inside: str = "") -> Path:
    """A zip of a folder; its files in an order of their own."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, f"{inside}{file.relative_to(folder)}")
    return to


def tarred(folder: Path, to: Path, *, inside: str = "", format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of a folder, compressed as its ending says."""
    to.parent.mkdir(exist_ok=True)
    mode: Any = f"w:{ {'.gz': 'gz', '.tgz': 'gz', '.bz2': 'bz2', '.xz': 'xz'}.get(to.suffix, '') }"
    with tarfile.open(to, mode, format=format) as archive:
        archive.add(folder, inside or ".")
    return to


def shard(path: Path, members: dict[str, bytes | str]) -> Path:
    """A tar of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode: Any = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(*numbers: int, **beside: Any) -> dict[str, bytes | str]:
    """KEY.png of each number, and what `beside` makes of the number, by ending."""
    return {
        f"{number:06}.{ending}": data
        for number in numbers
        for ending, data in (
            *((ending, of(number)) for ending, of in beside.items()),
            ("png", png(PIXELS[number])),
        )
    }


def dicom(pixels: np.ndarray[Any, Any], *, syntax: str = "", **tags: Any) -> bytes:
    """A DICOM file of one frame (H, W) or (H, W, 3), or of several (n, H, W)."""
    header = Dicom()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    header.file_meta.TransferSyntaxUID = UID(syntax) if syntax else ExplicitVRLittleEndian
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    frames = pixels if pixels.ndim == 3 and not colour else pixels[None]
    bits = 8 * pixels.dtype.itemsize
    usual = {
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "Rows": frames.shape[1],
        "Columns": frames.shape[2],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PlanarConfiguration": 0,
        "NumberOfFrames": len(frames),
        "PixelData": pixels.tobytes(),
    }
    for name, value in (usual | tags).items():
        setattr(header, name, value)
    header["PixelData"].VR = "OW" if bits > 8 else "OB"
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


def labels(found: Dataset) -> list[int] | None:
    """The labels to learn from."""
    return None if found.train.labels is None else found.train.labels.tolist()


def unused(found: Dataset, what: str) -> list[str]:
    """What is named as not used, of one kind."""
    return [name for group in found.notes.unused if group.what == what for name in group.names]
