"""The state of a training and its single step; snapshot and restore are exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stopgrad.checkpoint import Checkpoint
from stopgrad.compute import Compute, compute_for
from stopgrad.config import Config
from stopgrad.errors import CheckpointError, DivergedError
from stopgrad.images import Images, Normalization
from stopgrad.loss import simsiam_loss
from stopgrad.optimizer import LearningRates, build_optimizer, learning_rates, set_learning_rates
from stopgrad.randomness import torch_generator
from stopgrad.simsiam import SimSiam, build_simsiam
from stopgrad.views import Views, two_views


@dataclass
class Training:
    """All that a step reads and changes. `step` counts the steps taken."""

    config: Config
    compute: Compute
    normalization: Normalization
    pixels: Tensor  # (N, H, W, 3) uint8
    model: SimSiam
    optimizer: torch.optim.Optimizer
    step: int = 0
    losses: list[float] = field(default_factory=list)  # of the epoch so far

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the images left over wait for another epoch's order."""
        return len(self.pixels) // self.config.batch

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.step // self.steps_per_epoch

    @property
    def learning_rates(self) -> LearningRates:
        """The learning rates of the step to come."""
        return learning_rates(self.config, step=self.step, steps_per_epoch=self.steps_per_epoch)

    def batches(self) -> Iterator[Tensor]:  # each (B,) int64
        """The batches of indices that this epoch has left, in its own random order."""
        generator = torch_generator(self.config.seed, "order", self.epoch)
        order = torch.randperm(len(self.pixels), generator=generator)
        done = self.step % self.steps_per_epoch
        for number in range(done, self.steps_per_epoch):
            yield order[number * self.config.batch : (number + 1) * self.config.batch]

    def views(self, batch: Tensor) -> Views:  # (B,) -> (B, 3, S, S) twice
        """Two views of each image of a batch, as the seed and the step decide."""
        pixels = self.pixels[batch].to(self.compute.device).permute(0, 3, 1, 2)
        generator = torch_generator(
            self.config.seed, "views", self.step, device=self.compute.device
        )
        return two_views(
            pixels, generator, config=self.config.views, normalization=self.normalization
        )

    def take_step(self, views: Views) -> float:
        """Forward, loss, backward, step; returns the loss.

        Raises:
            DivergedError: When the loss or a gradient is not finite; the weights are then still
                those of the step before.
        """
        set_learning_rates(self.optimizer, self.learning_rates)
        with self.compute.autocast():
            outputs = self.model(self.compute.arrange(views.x1), self.compute.arrange(views.x2))
        loss = simsiam_loss(outputs, stop_gradient=self.config.stop_gradient)
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
                f"(loss {loss.item():g}, learning rate {self.learning_rates.lr:g})",
                expected="finite numbers; the step was not taken",
                hint="lower optimizer.base_lr or add optimizer.warmup_epochs",
            )

    def snapshot(self) -> Checkpoint:
        """The state as a checkpoint; tensors are shared with the model, not copied."""
        buffers = {
            f"{index}.{name}": value
            for index, entries in self.optimizer.state_dict()["state"].items()
            for name, value in entries.items()
            if isinstance(value, Tensor)
        }
        state = {"step": self.step, "losses": self.losses}
        return Checkpoint(self.step, dict(self.model.state_dict()), buffers, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint; each tensor keeps the memory format of the one it fills.

        Raises:
            CheckpointError: When its tensors are not those of this model.
        """
        load_model(self.model, checkpoint.model)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for key, value in checkpoint.optimizer.items():
            index, name = key.split(".", 1)
            parameter = parameters[int(index)]
            self.optimizer.state[parameter][name] = torch.empty_like(
                parameter, requires_grad=False
            ).copy_(value)
        self.step = checkpoint.step
        self.losses = [float(loss) for loss in checkpoint.state["losses"]]


def start_training(images: Images, config: Config, *, normalization: Normalization) -> Training:
    """A training at step 0: the model as the seed decides, images as one uint8 tensor."""
    compute = compute_for(config)
    model = build_simsiam(config)
    compute.place(model)
    return Training(
        config=config,
        compute=compute,
        normalization=normalization,
        pixels=_as_tensor(images),
        model=model.train(),
        optimizer=build_optimizer(model, config.optimizer),
    )


def _as_tensor(images: Images) -> Tensor:  # (N, H, W, 3) uint8
    """The pixels without a copy, unless they are read-only, which PyTorch warns of."""
    pixels = images.pixels if images.pixels.flags.writeable else images.pixels.copy()
    return torch.from_numpy(pixels)


def load_model(model: SimSiam, tensors: dict[str, Tensor]) -> None:
    """Fills a model with the tensors of a checkpoint.

    Raises:
        CheckpointError: When they are not those of this model.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model ({' '.join(str(error).split())[:200]})",
            expected="the tensors of the run's own config",
            hint="do not mix files of different runs",
        ) from error
