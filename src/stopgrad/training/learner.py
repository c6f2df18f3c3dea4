"""The state of a training and its single step; snapshot and restore are exact.

A step never waits for the device: its loss stays there until `read_losses`, and a step that is not
finite is refused there, with all that follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stopgrad.config import Config, torch_generator
from stopgrad.errors import DivergedError
from stopgrad.images import Images, Normalization, Packed
from stopgrad.method import (
    Compute,
    LearningRates,
    SimSiam,
    Views,
    build_optimizer,
    build_simsiam,
    compute_for,
    keep_learning_rates_on,
    learning_rates,
    random_table,
    set_learning_rates,
    simsiam_loss,
    use_repeatable,
    views_of,
)
from stopgrad.runs import Checkpoint, load_model
from stopgrad.training.replay import Replay


@dataclass
class Training:
    """All that a step reads and changes. `step` counts the steps taken."""

    config: Config
    compute: Compute
    normalization: Normalization
    pixels: Tensor | Packed  # (N, H, W, 3) uint8, on the device where they fit
    model: SimSiam
    optimizer: torch.optim.Optimizer
    make_views: Callable[..., Views]  # `views_of`, compiled where that pays
    forward: Callable[[Views], Tensor]  # the loss (), compiled where that pays
    refused: Tensor  # (), 1 from the first step that was not finite on
    replay: Replay | None = None  # of the whole step, on a GPU that holds all images
    step: int = 0  # steps taken
    epoch: int = 0  # epochs finished, their measurements included
    losses: list[float] = field(default_factory=list)  # of the epoch so far, those that were read
    collapsed: int = 0  # measurements in a row that said collapse
    unread: list[Tensor] = field(default_factory=list)  # loss and refusal (2,) of the newest steps

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the images left over wait for another epoch's order."""
        return len(self.pixels) // self.config.batch

    @property
    def steps_left(self) -> int:
        """Steps to the end of the epoch; 0 when only its measurements are missing."""
        return (self.epoch + 1) * self.steps_per_epoch - self.step

    def learning_rates(self, step: int) -> LearningRates:
        """The learning rates of a step, counted from 1."""
        return learning_rates(self.config, step=step - 1, steps_per_epoch=self.steps_per_epoch)

    def batches(self) -> Iterator[Tensor]:  # each (B,) int64
        """The batches of indices that this epoch has left, in its own random order."""
        generator = torch_generator(self.config.seed, "order", self.epoch)
        order = torch.randperm(len(self.pixels), generator=generator)
        if isinstance(self.pixels, Tensor):
            order = order.to(self.pixels.device)
        done = self.steps_per_epoch - self.steps_left
        for number in range(done, self.steps_per_epoch):
            yield order[number * self.config.batch : (number + 1) * self.config.batch]

    def views(self, batch: Tensor) -> Views:  # (B,) -> (B, 3, S, S) twice
        """Two views of each image of a batch, as the seed and the step decide."""
        return self._views_of(batch, self._table(len(batch)))

    def advance(self, batch: Tensor) -> None:  # (B,)
        """The next step, on two views of each image of a batch; see `take_step`."""
        if self.replay is None:
            self.take_step(self.views(batch))
            return
        set_learning_rates(self.optimizer, self.learning_rates(self.step + 1))
        self.unread.append(self.replay(batch, self._table(len(batch))))
        self.step += 1

    def take_step(self, views: Views) -> Tensor:  # -> ()
        """Forward, loss, backward, step; returns the loss, still on the device.

        When the loss or a gradient is not finite, this step and all that follow leave the weights
        as they are, and `read_losses` raises.
        """
        set_learning_rates(self.optimizer, self.learning_rates(self.step + 1))
        result = self._learn(views)
        self.unread.append(result)
        self.step += 1
        return result[0]

    def make_and_learn(self, batch: Tensor, table: Tensor) -> Tensor:  # (B,), table -> (2,)
        """A step from indices to new weights, at learning rates that are set: what is replayed."""
        return self._learn(self._views_of(batch, table))

    def _table(self, images: int) -> Tensor:  # (2B, columns)
        """The uniform numbers of this step's views."""
        generator = torch_generator(self.config.seed, "views", self.step, device=self._device)
        return random_table(generator, views=2 * images)

    @property
    def _device(self) -> torch.device:
        return self.compute.device

    def _views_of(self, batch: Tensor, table: Tensor) -> Views:
        pixels = self.compute.fetch(self.pixels, batch)
        return self.make_views(
            pixels, table, config=self.config.views, normalization=self.normalization
        )

    def _learn(self, views: Views) -> Tensor:  # -> (2,), loss and refusal
        loss = self.forward(views)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        self._refuse_unless_finite(loss)
        self.optimizer.step()
        return torch.stack([loss.float(), self.refused])

    def _refuse_unless_finite(self, loss: Tensor) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        finite = torch.isfinite(loss) & torch.isfinite(norms).all()
        torch.maximum(self.refused, 1 - finite.float(), out=self.refused)

    def read_losses(self) -> list[float]:
        """The losses of the steps since the last call; waits for the device.

        Raises:
            DivergedError: When a step was refused. `step` is then the last one that was taken,
                and the weights are those after it.
        """
        if not self.unread:
            return []
        first = self.step - len(self.unread) + 1
        read = torch.stack(self.unread).tolist()
        losses = [loss for loss, refused in read if not refused]
        self.unread = []
        self.losses += losses
        if len(losses) < len(read):
            self.step = first + len(losses) - 1
            raise self._diverged(loss=read[len(losses)][0])
        return losses

    def _diverged(self, *, loss: float) -> DivergedError:
        lr = self.learning_rates(self.step + 1).lr
        return DivergedError(
            f"the loss or a gradient is not finite at step {self.step + 1} "
            f"(loss {loss:g}, learning rate {lr:g})",
            expected="finite numbers; the step was not taken",
            hint="lower optimizer.base_lr or add optimizer.warmup_epochs",
        )

    def snapshot(self) -> Checkpoint:
        """The state as a checkpoint; tensors are shared with the model, not copied.

        All losses must have been read.
        """
        assert not self.unread, "losses that were not read"
        buffers = {
            f"{index}.{name}": value
            for index, entries in self.optimizer.state_dict()["state"].items()
            for name, value in entries.items()
            if isinstance(value, Tensor)
        }
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "losses": self.losses,
            "collapsed": self.collapsed,
        }
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
        # Checkpoints of version 0.1 had been measured whenever an epoch's steps were done.
        self.epoch = int(checkpoint.state.get("epoch", self.step // self.steps_per_epoch))
        self.losses = [float(loss) for loss in checkpoint.state["losses"]]
        self.collapsed = int(checkpoint.state.get("collapsed", 0))


def start_training(
    images: Images,
    config: Config,
    *,
    normalization: Normalization,
    init: Mapping[str, Tensor] | None = None,
) -> Training:
    """A training at step 0: the model as the seed decides, images on the device where they fit.

    Args:
        images: The images to learn from.
        config: Every knob.
        normalization: Of the images.
        init: What the encoder starts from, by its own names; None: random weights.
    """
    compute = compute_for(config)
    use_repeatable(config.repeatable)
    model = build_simsiam(config).train()
    if init is not None:
        model.encoder.load_state_dict(init)
    compute.place(model)

    def forward(views: Views) -> Tensor:
        with compute.autocast():
            outputs = model(compute.arrange(views.x1), compute.arrange(views.x2))
        return simsiam_loss(outputs, stop_gradient=config.stop_gradient)

    optimizer = build_optimizer(model, config.optimizer)
    refused = torch.zeros((), device=compute.device)
    optimizer.found_inf = refused  # type: ignore[attr-defined]
    training = Training(
        config=config,
        compute=compute,
        normalization=normalization,
        pixels=compute.keep(images.pixels),
        model=model,
        optimizer=optimizer,
        make_views=compute.compile(views_of),
        forward=compute.compile(forward),
        refused=refused,
    )
    if compute.device.type == "cuda":
        keep_learning_rates_on(optimizer, compute.device)
    if isinstance(training.pixels, Tensor) and training.pixels.is_cuda:
        training.replay = Replay(training.make_and_learn)
    return training
