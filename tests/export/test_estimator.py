"""Claims about `estimator`; scikit-learn's own checks are part of them."""

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import stopgrad
from stopgrad.config import ALL_BANDS, Config, preset
from stopgrad.errors import CheckpointError, ConfigError, DivergedError
from stopgrad.evaluation import embed
from stopgrad.export.arrays import ImagesError, read_images, to_pixels
from stopgrad.export.estimator import SimSiamEmbedder
from stopgrad.images import Dataset, images_from_arrays, normalization
from stopgrad.method import Compute, compute_for
from stopgrad.runs import prepare
from stopgrad.training import pretrain_epochs

# Runs of seconds may end in what the verdict calls a collapse.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL: dict[str, Any] = {"epochs": 1, "batch": 16, "config": {"views.size": 8}}

# Scikit-learn checks with tables of numbers: each row becomes an image one pixel high. No check is
# expected to fail.
AS_ROWS = SimSiamEmbedder("tiny", **(SMALL | {"batch": 8}), image_shape=(1, -1), pixel_range="fit")
EXPECTED_TO_FAIL: dict[str, str] = {}


@parametrize_with_checks([AS_ROWS], expected_failed_checks=lambda _: EXPECTED_TO_FAIL)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    check(estimator)


def _images(count: int = 48, *, seed: int = 0) -> np.ndarray:
    """(N, 16, 16, 3) uint8: every other one bright."""
    chance = np.random.default_rng(seed)
    bright = 130 * (np.arange(count) % 2)
    return (chance.integers(0, 120, (count, 16, 16, 3)) + bright[:, None, None, None]).astype(
        np.uint8
    )


def _tiny(**changes: Any) -> SimSiamEmbedder:
    return SimSiamEmbedder("tiny", **(SMALL | changes))


@pytest.fixture(scope="module")
def fitted() -> SimSiamEmbedder:
    return _tiny().fit(_images())


def _as_embed_computes(config: Config) -> Compute:
    """In fp32, so that features are the same on all machines but for their last bits."""
    return compute_for(config)._replace(precision="fp32")


def test_the_features_are_those_of_pretrain_and_embed(fitted: SimSiamEmbedder) -> None:
    config = preset("tiny", epochs=1, batch=16, **{"views.size": 8})
    images = images_from_arrays(_images())
    *_, epoch = pretrain_epochs(prepare(Dataset("", images, None), config), config)
    features = embed(
        epoch.model.encoder,
        images,
        normalization=normalization(images),
        compute=_as_embed_computes(config),
    )
    values = fitted.transform(_images())
    assert values.dtype == np.float32
    assert_array_equal(values, features.values.numpy())
    assert fitted.loss_curve_ == [epoch.loss]


def test_a_seed_repeats_the_features_and_labels_change_nothing(fitted: SimSiamEmbedder) -> None:
    images = _images()
    again = _tiny().fit_transform(images, np.arange(48))
    assert_array_equal(again, fitted.transform(images))
    other = _tiny(random_state=1).fit_transform(images)
    assert np.abs(other - again).max() > 1e-3


def test_every_layout_is_the_same_image(fitted: SimSiamEmbedder) -> None:
    """Flat and float images, in the ranges that they state, give the bits of bytes."""
    images = _images()
    expected = fitted.transform(images)
    assert_array_equal(fitted.transform(images.reshape(48, -1)), expected)  # 768 = 3 x 16 x 16
    floats = _tiny(pixel_range=(0, 1)).fit(images / 255)
    assert_array_equal(floats.transform(images / 255), expected)
    assert floats.n_features_in_ == 768


def test_gray_images_are_colour_ones_with_equal_channels() -> None:
    gray = _images()[..., 0]
    expected = _tiny().fit_transform(np.stack([gray] * 3, axis=-1))
    assert_array_equal(_tiny().fit_transform(gray), expected)
    flat = _tiny(image_shape=(16, 16)).fit_transform(gray.reshape(48, 256))
    assert_array_equal(flat, expected)


def test_paths_and_pillow_images_are_the_arrays_they_hold(
    fitted: SimSiamEmbedder, tmp_path: Path
) -> None:
    large = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in large]
    paths = [tmp_path / f"{number}.png" for number in range(16)]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    embedder = _tiny().fit(images)
    assert embedder.image_shape_ == (32, 32, 3)  # config_.image_side
    expected = embedder.transform(large)
    assert_array_equal(embedder.transform(paths), expected)
    assert_array_equal(embedder.transform([str(path) for path in paths]), expected)
    paths[3].write_bytes(b"no image")
    with pytest.raises(ImagesError, match=r"image 3, .*3\.png"):
        embedder.transform(paths)


@pytest.mark.parametrize(
    ("changes", "images", "said"),
    [
        ({}, _images() / 255, "pixel_range=\\(0, 1\\)"),
        ({}, _images().astype(np.int64) * 2, "from 0 to 255"),
        ({"pixel_range": (0, 1)}, _images() / 200, "as pixel_range says"),
        ({"pixel_range": (1, 0)}, _images() / 255, "low < high"),
        ({}, _images()[0], "a single image as X\\[None\\]"),
        ({}, _images().reshape(48, -1)[:, :700], "rows of 700 features"),
        ({"image_shape": (16, 16, 2)}, _images().reshape(48, -1), "whose product"),
        ({"batch": 64}, _images(), "n_samples = 48 images with batch = 64"),
    ],
)
def test_images_that_cannot_be_used_are_refused(
    changes: dict[str, Any], images: np.ndarray, said: str
) -> None:
    with pytest.raises(ImagesError, match=said) as caught:
        _tiny(**changes).fit(images)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_images_of_another_size_than_those_fitted_are_refused(fitted: SimSiamEmbedder) -> None:
    with pytest.raises(ImagesError, match=r"\(8, 16, 3\)"):
        fitted.transform(_images()[:, :8])


def test_images_of_other_channels_than_the_encoder_takes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"add --encoder\.channels 2"):
        _tiny().fit(_images()[..., :2])


def test_images_of_five_bands_are_what_load_makes_of_them(tmp_path: Path) -> None:
    bands = np.concatenate([_images(), _images(seed=1)], axis=3)[..., :5]
    config = {"views.size": 8, "encoder.channels": 5}
    embedder = _tiny(config=config).fit(np.moveaxis(bands, 3, 1))  # channels first
    assert embedder.image_shape_ == (16, 16, 5)
    assert len(embedder.normalization_.mean) == 5
    data, knobs = stopgrad.load(bands).dataset, preset("tiny", epochs=1, batch=16, **config)
    *_, epoch = pretrain_epochs(prepare(data, knobs), knobs)
    normal = normalization(data.train, channels=5)
    expected = embed(
        epoch.model.encoder, data.train, normalization=normal, compute=_as_embed_computes(knobs)
    )
    features = embedder.transform(bands)
    assert_array_equal(features, expected.values.numpy())
    embedder.save(tmp_path / "e")
    loaded = SimSiamEmbedder.load(tmp_path / "e")
    assert_array_equal(loaded.transform(bands), features)
    for number, image in enumerate(bands[:16]):
        tifffile.imwrite(tmp_path / f"{number}.tif", image, photometric="minisblack",
                         planarconfig="contig")  # fmt: skip
    paths = [tmp_path / f"{number}.tif" for number in range(16)]
    read = read_images(paths, side=16, bands=ALL_BANDS)
    assert_array_equal(read.pixels, bands[:16])


def test_of_four_channels_the_last_is_alpha_unless_all_bands_are_asked_for() -> None:
    alpha = np.zeros((48, 16, 16, 1), np.uint8)
    alpha[:, 8:] = 255
    four = np.concatenate([_images(), alpha], axis=3)
    white = np.where(alpha == 0, np.uint8(255), _images())
    assert_array_equal(to_pixels(four, None, ()), white)
    assert_array_equal(to_pixels(four, None, ALL_BANDS), four)
    assert_array_equal(to_pixels(four, None, (3, 2, 1)), _images()[..., ::-1])


def test_values_outside_a_fitted_range_are_clipped() -> None:
    numbers = _images().astype(float)
    embedder = _tiny(pixel_range="fit").fit(numbers)
    assert (embedder.range_.low, embedder.range_.high) == (numbers.min(), numbers.max())
    beyond = np.where(numbers == numbers.max(), 1e6, numbers)
    assert_array_equal(embedder.transform(beyond), embedder.transform(numbers))


def test_parameters_reach_the_training_and_win_over_the_config() -> None:
    embedder = _tiny(base_lr=0.5, alpha_h=2.0, config={"optimizer.alpha_h": 3.0, "batch": 4})
    embedder.set_params(weight_decay=np.float32(0.5), epochs=np.int64(1))
    config = embedder._config()
    assert (config.optimizer.base_lr, config.optimizer.alpha_h) == (0.5, 2.0)
    assert (config.optimizer.weight_decay, config.batch, config.epochs) == (0.5, 16, 1)
    with pytest.raises(ConfigError, match=r"did you mean optimizer.alpha_h"):
        _tiny(config={"optimizer.alfa_h": 1}).fit(_images())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite:UserWarning")
def test_a_pipeline_is_searched_over_the_embedders_parameters() -> None:
    """A `base_lr` so large that the features are not finite loses to one that learns."""
    pipeline = make_pipeline(_tiny(), LogisticRegression(max_iter=500))
    labels = np.arange(48) % 2
    grid = {"simsiamembedder__base_lr": [1e30, 0.1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(_images(), labels)
    assert search.best_params_ == {"simsiamembedder__base_lr": 0.1}
    assert search.score(_images(seed=1), labels) == 1.0
    with pytest.raises(DivergedError, match="after the last step"):
        _tiny(base_lr=1e30, batch=48).fit(_images())


def test_a_fit_that_fails_leaves_nothing_fitted() -> None:
    embedder = _tiny(pixel_range="fit").fit(_images() / 255)
    with pytest.raises(ImagesError, match="4 images"):
        embedder.fit(_images(4))
    with pytest.raises(NotFittedError):
        embedder.transform(_images() / 255)


def test_a_clone_is_not_fitted(fitted: SimSiamEmbedder) -> None:
    with pytest.raises(NotFittedError):
        clone(fitted).transform(_images())
    assert clone(fitted).get_params() == fitted.get_params()


def test_features_have_names(fitted: SimSiamEmbedder) -> None:
    names = fitted.get_feature_names_out()
    assert list(names[:2]) == ["simsiamembedder0", "simsiamembedder1"]
    assert len(names) == fitted.transform(_images()[:1]).shape[1]


def test_a_pickle_holds_plain_values_and_gives_the_same_bits(fitted: SimSiamEmbedder) -> None:
    data = pickle.dumps(fitted)
    assert b"torch" not in data
    assert_array_equal(pickle.loads(data).transform(_images()), fitted.transform(_images()))


def test_a_saved_embedder_gives_the_same_bits_in_another_process(
    fitted: SimSiamEmbedder, tmp_path: Path
) -> None:
    file, images, features = (tmp_path / name for name in ("e.safetensors", "x.npy", "f.npy"))
    fitted.save(file)
    np.save(images, _images())
    code = (
        "import sys, numpy as np; from stopgrad.export import SimSiamEmbedder as E\n"
        "np.save(sys.argv[3], E.load(sys.argv[1]).transform(np.load(sys.argv[2])))\n"
    )
    subprocess.run([sys.executable, "-c", code, file, images, features], check=True)
    assert_array_equal(np.load(features), fitted.transform(_images()))


def test_what_is_saved_comes_back_whole(tmp_path: Path) -> None:
    embedder = _tiny(image_shape=(1, -1), pixel_range=(-1.0, 300.0)).fit(
        _images().reshape(48, -1).astype(float)
    )
    embedder.save(tmp_path / "e")
    loaded = SimSiamEmbedder.load(tmp_path / "e")
    assert loaded.get_params() == embedder.get_params()
    for name in ("config_", "normalization_", "loss_curve_", "verdict_", "image_shape_", "range_"):
        assert getattr(loaded, name) == getattr(embedder, name), name


def test_every_changed_byte_of_a_saved_embedder_is_found(
    fitted: SimSiamEmbedder, tmp_path: Path
) -> None:
    path = tmp_path / "e"
    fitted.save(path)
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 60):
        spoilt = bytearray(data)
        spoilt[place] ^= 1 << int(place % 8)
        path.write_bytes(spoilt)
        with pytest.raises(CheckpointError) as caught:
            SimSiamEmbedder.load(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        SimSiamEmbedder.load(path)


def test_weights_that_are_not_the_configs_are_refused(fitted: SimSiamEmbedder) -> None:
    state = fitted.__getstate__()
    state["fitted"]["config"]["encoder"]["width"] = 32  # would take more memory than there is
    with pytest.raises(CheckpointError, match="of another shape"):
        SimSiamEmbedder("tiny").__setstate__(state)


def test_without_scikit_learn_the_next_step_is_named() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from stopgrad.errors import ConfigError\n"
        "try: from stopgrad.export import SimSiamEmbedder\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "pip install 'stopgrad[sklearn]'" in done.stdout


def test_a_collapse_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stopgrad.method.collapse.YOUNG_STEPS", 0)
    with pytest.warns(ConvergenceWarning, match="collapse: .*; try: "):
        _tiny(config={"views.size": 8, "stop_gradient": False}).fit(_images())


def test_features_do_not_depend_on_what_stands_beside_an_image(fitted: SimSiamEmbedder) -> None:
    images = _images()
    apart = np.concatenate([fitted.transform(images[i : i + 7]) for i in range(0, 48, 7)])
    assert_allclose(apart, fitted.transform(images), atol=1e-6)


def test_an_image_in_memory_is_turned_as_its_file_is(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        pair = read_images([tmp_path / "turned.png", opened], side=20).pixels
    assert_array_equal(pair[0], pair[1])
    straight = read_images([image], side=20).pixels[0]
    assert not np.array_equal(pair[0], straight)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "RGBX", "PA", "La", "RGBa"])
def test_an_image_of_any_mode_is_read(mode: str) -> None:
    through = {"PA": "P", "La": "LA", "RGBa": "RGBA", "LAB": "RGB"}.get(mode, "RGB")
    image = Image.new("RGB", (8, 8), (200, 40, 40)).convert(through)
    made = Image.new("LAB", (8, 8)) if mode == "LAB" else image.convert(mode)
    assert read_images([made], side=8).pixels.shape == (1, 8, 8, 3)


def test_a_backbone_of_fixed_sizes_takes_images_of_others() -> None:
    config = {"encoder.name": "timm:test_vit", "views.size": 16}  # patches of 16 px
    large = np.kron(_images(20), np.ones((1, 2, 2, 1), np.uint8))[:, :21, :21]
    embedder = _tiny(config=config).fit(large)
    images = dataclasses.replace(images_from_arrays(large), whole_side=16)
    how = {
        "normalization": embedder.normalization_,
        "compute": _as_embed_computes(embedder.config_),
    }
    wanted = embed(embedder.encoder_, images, **how).values.numpy()
    assert_allclose(embedder.transform(large), wanted, atol=1e-5)
    with pytest.raises(ConfigError, match="resize the images"):
        _tiny(config=config).fit(large[:, :12])
