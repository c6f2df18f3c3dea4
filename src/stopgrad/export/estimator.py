"""`SimSiamEmbedder`: SimSiam inside scikit-learn; `fit` pretrains, `transform` gives features.

In: images X (see `arrays`). Out: features (N, F) float32. Needs the extra `sklearn`.
"""

from __future__ import annotations

import logging
import secrets
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from stopgrad.config import Config, PresetName
from stopgrad.errors import ConfigError, DivergedError
from stopgrad.evaluation import embed
from stopgrad.export.arrays import (
    ImagesError,
    Numbers,
    PixelRange,
    is_list_of_images,
    range_of,
    read_images,
    shaped,
    to_pixels,
)
from stopgrad.export.fitted import (
    Fitted,
    checked_config,
    copied_encoder,
    from_bytes,
    from_plain,
    plain,
    to_bytes,
    whole_images,
)
from stopgrad.images import Images, Levels, levels_asked, normalization, paths_in
from stopgrad.method import Encoder, compute_for, plain_torch, use_threads
from stopgrad.runs import TrainingImages
from stopgrad.storage import user_path, write_atomically
from stopgrad.training import Epoch, pretrain_epochs

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ImportError as error:
    raise ConfigError(
        "SimSiamEmbedder needs scikit-learn", hint="pip install 'stopgrad[sklearn]'"
    ) from error

AT_THE_END = 10**6  # epochs between measurements: measures only the last epoch
NOT_OF_FIT = (  # knobs that have no say in `fit`
    *("seed", "knn_every", "measure_every", "validation", "bad_images", "image_column"),
    *("label_column", "views.own"),
)

log = logging.getLogger(__name__)


class SimSiamEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features learned from unlabelled images by SimSiam, as a scikit-learn transformer.

    X is an array of images as `stopgrad.load` takes it, of C channels or gray, or flat
    (N, H * W * C); or a list of paths or Pillow images, which are cropped to their centres and
    resized to `config_.image_side`. If C is not three, `config` needs `{"encoder.channels": C}`. Of
    four channels the last is alpha, unless `config` has `{"bands": "all"}`. A parameter that is
    None takes the preset's value.

    Args:
        preset: cpu (minutes on two cores), digits, tiny (tests), miniature, cifar, fast, imagenet.
        epochs: Passes over the images.
        batch: Images per step; `fit` needs at least one batch.
        base_lr: Learning rate per 256 images of a batch.
        alpha_h: Learning rate of the predictor over the learning rate.
        weight_decay: Weight decay.
        config: Other knobs by key path, such as `{"views.flip": 0.0, "encoder.width": 2}`;
            `stopgrad pretrain --help-all` lists them.
        image_shape: (H, W) or (H, W, C) of flat rows; one of them may be -1. None: squares.
        pixel_range: None: X holds integers from 0 to 255. (low, high): the values of black and
            white, such as (0, 1); others are refused. "fit": the lowest and highest value in
            `fit`; later values outside are clipped.
        random_state: Seed of all randomness, or a RandomState to draw it from. None: a new seed
            for each fit.

    Attributes:
        encoder_: The frozen encoder, a PyTorch module (B, C, H, W) -> (B, F).
        config_: Every knob of the training.
        normalization_: Mean and standard deviation of the fitted images, by channel.
        loss_curve_: Mean loss of each epoch.
        verdict_: Whether the representation is healthy or collapsed, and why.
        image_shape_: (H, W, C) of the fitted images.
        range_: The values that became 0 and 255; None if X held pixels.
        levels_: The same by depth, of fitted files of more than 8 bits.
        n_features_in_: H * W * C.
    """

    def __init__(
        self,
        preset: PresetName = "cpu",
        *,
        epochs: int | None = None,
        batch: int | None = None,
        base_lr: float | None = None,
        alpha_h: float | None = None,
        weight_decay: float | None = None,
        config: Mapping[str, Any] | None = None,
        image_shape: Sequence[int] | None = None,
        pixel_range: PixelRange = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.preset = preset
        self.epochs = epochs
        self.batch = batch
        self.base_lr = base_lr
        self.alpha_h = alpha_h
        self.weight_decay = weight_decay
        self.config = config
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.random_state = random_state

    @plain_torch()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Pretrains an encoder on images; ignores labels.

        Raises:
            ImagesError: For images that cannot be used, or fewer than a batch.
            ConfigError: For an invalid setting.
            DivergedError: When the loss is not finite.
        """
        self.__dict__.pop("encoder_", None)  # a fit that fails leaves nothing fitted
        self.config_ = self._config()
        use_threads(self.config_.threads)
        images = self._images(X, fitting=True)
        if len(images) < self.config_.batch:
            raise ImagesError(
                f"n_samples = {len(images)} images with batch = {self.config_.batch}",
                expected="at least one batch of images",
                hint="pass more images or a smaller batch",
            )
        self.loss_curve_: list[float] = []
        channels = self.config_.encoder.channels
        train = TrainingImages(images, channels=channels)
        for epoch in pretrain_epochs(train, self.config_):
            log.info("epoch %d/%d, loss %.4f", epoch.number, self.config_.epochs, epoch.loss)
            self.loss_curve_.append(epoch.loss)
        self._take_over(epoch, images)
        return self

    @plain_torch()
    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Features (N, F) of images, which are normalised but not augmented.

        Raises:
            NotFittedError: Before `fit`.
            ImagesError: For images that cannot be used.
        """
        check_is_fitted(self, "encoder_")
        use_threads(self.config_.threads)
        images = self._images(X, fitting=False)
        features = embed(
            self.encoder_,
            images,
            normalization=self.normalization_,
            compute=compute_for(self.config_)._replace(precision="fp32"),  # as exports compute
        )
        values: npt.NDArray[np.float32] = features.values.cpu().numpy()
        return values

    def save(self, path: str | Path) -> None:
        """Writes the fitted embedder into one safetensors file; StorageError if that fails."""
        check_is_fitted(self, "encoder_")
        write_atomically(user_path(path), to_bytes(self._fitted()))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote. Nothing in the file is executed.

        Raises:
            CheckpointError: When the file is damaged or was not written by `save`.
        """
        fitted = from_bytes(user_path(path))
        embedder = cls(**fitted.parameters)
        embedder._restore(fitted)
        return embedder

    def __getstate__(self) -> dict[str, Any]:
        """Plain values and arrays: a pickle holds no network and no code of stopgrad."""
        state: dict[str, Any] = dict(super().__getstate__())
        if "encoder_" not in state:
            return state
        learned = self._fitted()
        return {k: v for k, v in state.items() if not k.endswith("_")} | {"fitted": plain(learned)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Builds the network and loads its weights.

        Raises:
            CheckpointError: When the weights do not fit the network.
        """
        fitted = state.pop("fitted", None)
        super().__setstate__(state)
        if fitted is not None:
            self._restore(from_plain(fitted))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.encoder_.feature_width

    def _config(self) -> Config:
        """The preset, changed by the parameters that are not None, without labels."""
        own = {
            "epochs": self.epochs,
            "batch": self.batch,
            "optimizer.base_lr": self.base_lr,
            "optimizer.alpha_h": self.alpha_h,
            "optimizer.weight_decay": self.weight_decay,
        }
        given = {key: value for key, value in own.items() if value is not None}
        if not isinstance(self.config or {}, Mapping):
            raise ConfigError(f"config = {self.config!r}", expected="knobs by key path, or None")
        if taken := sorted({*NOT_OF_FIT} & {*(self.config or {})}):
            raise ConfigError(
                f"{', '.join(taken)} in config",
                expected="knobs that fit does not set itself",
                hint="set the seed with random_state; fit takes all images as they are, without "
                "labels, and measures at its end",
            )
        ours = {"seed": self._seed(), "knn_every": 0, "measure_every": AT_THE_END}
        return checked_config({**(self.config or {}), **given, **ours}, preset=self.preset)

    def _seed(self) -> int:
        if self.random_state is None:
            return secrets.randbits(31)
        if isinstance(self.random_state, np.random.RandomState):
            return int(self.random_state.randint(2**31))
        return int(self.random_state)

    def _images(self, X: Any, *, fitting: bool) -> Images:
        """X as images; in `fit`, notes the shape and the range for later calls."""
        X = paths_in(X) or X  # of an array or a column too
        decoded, bands = is_list_of_images(X), self.config_.reading.bands
        levels = levels_asked(self.config_.white_level) if fitting else self.levels_
        if decoded:
            array: Numbers
            side = self.config_.image_side
            array, levels = read_images(X, side=side, bands=bands, levels=levels)
        else:
            array = shaped(self._checked(X, fitting=fitting), image_shape=self.image_shape)
        shape = array.shape[1:]
        if fitting:
            self.image_shape_, self.n_features_in_ = shape, int(np.prod(shape))
            self.range_ = None if decoded else range_of(array, self.pixel_range)
            self.levels_: tuple[Levels, ...] = levels
        elif shape != self.image_shape_:
            raise ImagesError(
                f"images of shape {shape}",
                expected=f"{self.image_shape_} (height, width, channels), as in fit",
                hint="resize the images to this shape",
            )
        pixels = array if decoded else to_pixels(array, self.range_, bands)
        return whole_images(pixels, self.config_)

    def _checked(self, X: Any, *, fitting: bool) -> Numbers:
        """Runs scikit-learn's checks: finite numbers, not sparse, the same features."""
        if len(getattr(X, "shape", ())) in (3, 4):
            array: Numbers = check_array(X, allow_nd=True)
        else:
            array = validate_data(self, X, reset=fitting)
        return array

    def _take_over(self, epoch: Epoch, images: Images) -> None:
        """Keeps the result of the last epoch, and warns of a collapse."""
        verdict = epoch.verdict
        assert verdict is not None
        if verdict.state == "diverged":
            raise DivergedError(
                f"{verdict.reason} after the last step",
                expected="finite features",
                hint=verdict.advice,
            )
        self.encoder_: Encoder = copied_encoder(self.config_, epoch.model.encoder.state_dict())
        channels = self.config_.encoder.channels
        self.normalization_ = normalization(images, channels=channels)
        self.verdict_ = verdict
        if verdict.advice:
            text = f"{verdict.state}: {verdict.reason}; try: {verdict.advice}"
            warnings.warn(text, ConvergenceWarning, stacklevel=3)

    def _fitted(self) -> Fitted:
        """Everything that `fit` learned."""
        parameters = self.get_params(deep=False)
        if isinstance(self.random_state, np.random.RandomState):
            parameters["random_state"] = self.config_.seed
        return Fitted(
            parameters=parameters,
            config=self.config_,
            normalization=self.normalization_,
            loss_curve=tuple(self.loss_curve_),
            verdict=self.verdict_,
            image_shape=self.image_shape_,
            range=self.range_,
            levels=self.levels_,
            feature_names=tuple(getattr(self, "feature_names_in_", ())),
            weights={k: v.cpu().numpy() for k, v in self.encoder_.state_dict().items()},
        )

    @plain_torch()
    def _restore(self, fitted: Fitted) -> None:
        weights = {key: torch.from_numpy(value.copy()) for key, value in fitted.weights.items()}
        self.encoder_ = copied_encoder(fitted.config, weights)
        self.config_, self.normalization_ = fitted.config, fitted.normalization
        self.loss_curve_, self.verdict_ = list(fitted.loss_curve), fitted.verdict
        self.image_shape_, self.range_ = fitted.image_shape, fitted.range
        self.levels_ = fitted.levels
        self.n_features_in_ = int(np.prod(fitted.image_shape))
        if fitted.feature_names:
            self.feature_names_in_ = np.array(fitted.feature_names, object)
