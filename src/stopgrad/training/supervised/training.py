"""The state of a training with labels and its single step; snapshot and restore are exact."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.config import Config, torch_generator
from stopgrad.errors import CheckpointError, ConfigError, DivergedError
from stopgrad.images import Normalization
from stopgrad.method import (
    Classifier,
    Compute,
    bring_down,
    compute_for,
    cosine_with_warmup,
    normalize,
    use_repeatable,
    why_not,
)
from stopgrad.runs import Checkpoint
from stopgrad.training.supervised.crop import draw_crops, padded_crop
from stopgrad.training.supervised.recipe import LabelledShare, Recipe, check_recipe


class LabelledBatch(NamedTuple):
    """What one step learns from."""

    x: Tensor  # (B, 3, h, w) float32, normalised
    labels: Tensor  # (B,) int64


@dataclass
class LabelledTraining:
    """All that a step reads and changes. `step` counts the steps taken."""

    config: Config
    recipe: Recipe
    images: LabelledShare
    normalization: Normalization
    compute: Compute
    model: Classifier
    optimizer: torch.optim.Optimizer
    step: int = 0
    losses: list[float] = field(default_factory=list)  # of the newest epoch
    seconds: float = 0.0  # that all steps took, s

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch, the same for every share of the labels."""
        return self.images.full_size // self.recipe.batch

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """All epochs are."""
        return self.epoch >= self.recipe.epochs

    def lr(self, step: int) -> float:
        """The learning rate of the encoder at a step, counted from 0."""
        return self.recipe.lr * self._curve(step)

    def _curve(self, step: int) -> float:
        """The factor on the peak learning rates."""
        return cosine_with_warmup(step, total=self.recipe.epochs * self.steps_per_epoch)

    def batches(self) -> Iterator[Tensor]:  # each (B,) int64
        """The batches of indices that this epoch has left: the share, repeated in new orders."""
        seed, task, batch = self.config.seed, self.recipe.task, self.recipe.batch
        generator = torch_generator(seed, task, "order", self.epoch)
        size = len(self.images.train)
        passes = math.ceil(self.images.full_size / size)
        order = torch.cat([torch.randperm(size, generator=generator) for _ in range(passes)])
        for number in range(self.step % self.steps_per_epoch, self.steps_per_epoch):
            yield order[number * batch : (number + 1) * batch]

    def augmented(self, batch: Tensor) -> LabelledBatch:  # (B,)
        """The images of a batch, cropped and flipped as the seed and the step decide."""
        train, device, recipe = self.images.train, self.compute.device, self.recipe
        index = batch.numpy()
        assert train.labels is not None
        labels = torch.from_numpy(train.labels[index]).to(device)
        pixels = torch.from_numpy(train.pixels[index]).to(device).permute(0, 3, 1, 2)
        position = (self.config.seed, recipe.task, "crops", self.step)
        crops = draw_crops(
            torch_generator(*position, device=device),
            images=len(batch),
            room=recipe.room(train),
            flip=recipe.flip,
        )
        pixels = bring_down(pixels, train.whole_size)
        cut = padded_crop(pixels, crops, padding=recipe.padding, size=recipe.size(train))
        return LabelledBatch(normalize(cut, self.normalization), labels)

    def take_step(self, batch: LabelledBatch) -> float:
        """Forward, cross-entropy, backward, step; returns the loss.

        Raises:
            DivergedError: When the loss or a gradient is not finite; the weights are then still
                those of the step before.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._curve(self.step)
        with self.compute.autocast():
            logits = self.model(self.compute.arrange(batch.x))  # (B, C)
        loss = F.cross_entropy(logits, batch.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._check_finite(loss)
        self.optimizer.step()
        self.step += 1
        self.losses.append(loss.item())
        return self.losses[-1]

    def _check_finite(self, loss: Tensor) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        if not bool(torch.isfinite(loss) & torch.isfinite(norms).all()):
            raise DivergedError(
                f"the loss or a gradient is not finite at step {self.step + 1} "
                f"(loss {loss.item():g}, learning rate {self.lr(self.step):g})",
                expected="finite numbers; the step was not taken",
                hint=f"lower {self.recipe.task}.base_lr",
            )

    def snapshot(self) -> Checkpoint:
        """The state as a checkpoint; tensors are shared with the model, not copied."""
        momentum = {
            f"{index}.{name}": value
            for index, entries in self.optimizer.state_dict()["state"].items()
            for name, value in entries.items()
            if isinstance(value, Tensor)
        }
        state = {"step": self.step, "losses": self.losses}
        return Checkpoint(self.step, dict(self.model.state_dict()), momentum, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint; each tensor keeps the memory format of the one it fills.

        Raises:
            CheckpointError: When its tensors are not those of this model.
        """
        try:
            self.model.load_state_dict(checkpoint.model)
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint does not fit the model ({' '.join(str(error).split())[:200]})",
                expected="the tensors of this training's own config",
                hint="do not mix files of different runs",
            ) from error
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for key, value in checkpoint.optimizer.items():
            index, name = key.split(".", 1)
            like = torch.empty_like(parameters[int(index)], requires_grad=False)
            self.optimizer.state[parameters[int(index)]][name] = like.copy_(value)
        self.step = checkpoint.step
        self.losses = [float(loss) for loss in checkpoint.state["losses"]]


def start_labelled_training(
    model: Classifier,
    images: LabelledShare,
    *,
    recipe: Recipe,
    config: Config,
    normalization: Normalization,
) -> LabelledTraining:
    """A training of this classifier at step 0.

    Raises:
        DataError: When there are fewer images than one batch.
        ConfigError: For a crop that does not fit the pictures or the backbone, or a device that
            is not there.
    """
    check_recipe(recipe, images)
    use_repeatable(config.repeatable)
    compute = compute_for(config)
    compute.place(model).eval()
    size = recipe.size(images.train)
    if reason := why_not(model.encoder, size):
        raise ConfigError(
            f"{config.encoder.name} and crops of {size.width} x {size.height} px ({reason})",
            expected="crops of a size that the backbone takes",
            hint=f"set {recipe.task}.crop",
        )
    return LabelledTraining(
        config=config,
        recipe=recipe,
        images=images,
        normalization=normalization,
        compute=compute,
        model=model.train(),
        optimizer=_optimizer(model, recipe),
    )


def _optimizer(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with weight decay on every parameter, and a peak learning rate for either part."""
    parts = ((model.encoder, recipe.lr), (model.head, recipe.head_lr))
    groups = [{"params": list(part.parameters()), "peak": peak} for part, peak in parts]
    return torch.optim.SGD(
        groups, lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
