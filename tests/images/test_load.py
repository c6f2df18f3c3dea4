"""Specs that load_dataset takes or refuses, and the embedded digits."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stopgrad.errors import ConfigError, DataError
from stopgrad.images import load_dataset
from stopgrad.images.load import _allocate
from stopgrad.images.sources import embedded


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar11", r"unknown data set 'cifar11' \(did you mean cifar10\?\)"),
        ("MNIST5K", r"did you mean mnist5k\?"),
        ("zebra", "unknown data set 'zebra'; expected mnist5k"),
        ("", "unknown data set ''"),
        ("./nothing", r"no folder './nothing'"),
        ("/no/such/folder", "no folder '/no/such/folder'"),
        ("hf:", "expected hf:OWNER/NAME"),
        ("hf:name", "expected hf:OWNER/NAME"),
        ("\n", "unknown data set"),
        ("a\0b", "unknown data set"),
        ("x" * 5000, "unknown data set"),
    ],
)
def test_unknown_specs_are_data_errors_in_one_line(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(spec)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset(str(tmp_path / "a.png"))


def test_known_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist5k").mkdir()
    for number, gray in enumerate(load_digits().images[:4]):
        Image.fromarray((gray * 15).astype(np.uint8)).save(tmp_path / "mnist5k" / f"{number}.png")
    found = load_dataset("mnist5k")
    assert len(found.train) == 4000
    assert found.notes.remarks == (
        "mnist5k is the data set that stopgrad knows by this name: the folder mnist5k/ is named "
        "./mnist5k",
    )
    there = load_dataset("./mnist5k")
    assert (len(there.train), there.notes.remarks) == (4, ())


def test_a_known_name_that_cannot_be_fetched_leads_to_the_folder_of_that_name(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for there in (False, True):
        with pytest.raises(DataError) as caught:
            load_dataset("cifar10")
        assert caught.value.hint.endswith("the folder cifar10/ is named ./cifar10") == there
        (tmp_path / "cifar10").mkdir(exist_ok=True)


def test_side_below_one_is_a_config_error():
    with pytest.raises(ConfigError, match="at least 1 px"):
        load_dataset("mnist5k", side=0)


def test_embedded_digits_are_balanced_disjoint_and_legible():
    found = load_dataset("mnist5k")
    assert np.bincount(found.train.labels).tolist() == [400] * 10
    assert np.bincount(found.test.labels).tolist() == [100] * 10
    assert not set(found.train.sources) & set(found.test.sources)
    assert found.train.pixels.shape == (4000, 28, 28, 3)
    assert (found.train.pixels[..., 0] == found.train.pixels[..., 2]).all()
    # A nearest class mean tells digits from noise: 10 % by chance, about 80 % on MNIST.
    flat = found.train.pixels[..., 0].reshape(4000, -1).astype(float)
    means = np.stack([flat[found.train.labels == digit].mean(0) for digit in range(10)])
    test = found.test.pixels[..., 0].reshape(1000, -1).astype(float)
    nearest = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == found.test.labels).mean() > 0.7


def test_embedded_digits_can_be_made_smaller():
    assert load_dataset("mnist5k", side=16).train.pixels.shape == (4000, 16, 16, 3)


@pytest.mark.parametrize("count", [10**12, 2**62])
def test_more_pixels_than_memory_are_a_data_error(count):
    with pytest.raises(DataError, match=rf"no memory for {count:,} images of 32 x 16 px"):
        _allocate((count, 16, 32, 3))


def test_embedded_digits_are_those_of_earlier_versions_to_the_bit():
    found = load_dataset("mnist5k")
    assert (
        found.train.fingerprint
        == "df1b034365383353c1ecad9a147f33468e4dca2b8fd548425909c2d2bc3b0757"
    )
    assert (
        found.test.fingerprint == "69040a2f41cf12e50e6e2fdec2da4c313155b9ff9172c5f0d058f6437d0cb66a"
    )


def test_embedded_digits_that_are_damaged_are_a_data_error(tmp_path, monkeypatch):
    data = embedded.FILE.read_bytes()
    for number, bad in enumerate((data[:1000], b"", data[:5000] + b"x" + data[5001:])):
        file = tmp_path / f"{number}.npz"
        file.write_bytes(bad)
        monkeypatch.setattr(embedded, "FILE", file)
        with pytest.raises(DataError, match=r"embedded digits in .* cannot be read"):
            load_dataset("mnist5k")
