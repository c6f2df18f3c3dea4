"""SimSiam on one page: Algorithm 1 of the paper in plain PyTorch, with stopgrad's parts.

    python examples/simsiam_on_one_page.py --epochs 5

In: the embedded digits, labels unused. Out: the loss of each epoch, then kNN accuracy on the test
digits. With the same settings `stopgrad pretrain` takes the same steps, bit for bit.
"""

import argparse
from collections.abc import Sequence

import torch

from stopgrad.config import Config, preset, torch_generator
from stopgrad.evaluation import embed, weighted_knn
from stopgrad.images import Dataset, Images, load_dataset, normalization
from stopgrad.method import (
    SimSiam,
    build_optimizer,
    build_simsiam,
    compute_for,
    learning_rates,
    simsiam_loss,
    two_views,
)


def train(images: Images, config: Config) -> tuple[SimSiam, list[float]]:
    """Pretrains on images without labels; returns the model and the mean loss of each epoch."""
    pixels = torch.tensor(images.pixels).permute(0, 3, 1, 2)  # (N, 3, H, W) uint8
    mean_std = normalization(images)
    model = build_simsiam(config).train()  # encoder f, projector g, predictor h
    model.to(memory_format=torch.channels_last)  # as the views are
    optimizer = build_optimizer(model, config.optimizer)
    steps_per_epoch = len(pixels) // config.batch
    step, losses = 0, []

    for epoch in range(config.epochs):
        total = 0.0
        order = torch.randperm(len(pixels), generator=torch_generator(config.seed, "order", epoch))
        for batch in order.split(config.batch)[:steps_per_epoch]:
            random = torch_generator(config.seed, "views", step)
            x1, x2 = two_views(
                pixels[batch], random, config=config.views, normalization=mean_std
            )  # (B, 3, S, S) twice
            outputs = model(x1, x2)  # z = g(f(x)) and p = h(z) of both views, each (B, D)
            # D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2, D the negative cosine. Eq. 4.
            loss = simsiam_loss(outputs, stop_gradient=config.stop_gradient)

            rates = learning_rates(config, step=step, steps_per_epoch=steps_per_epoch)
            optimizer.set_learning_rates({"encoder": rates.lr, "predictor": rates.predictor_lr})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step, total = step + 1, total + loss.item()
        losses.append(total / steps_per_epoch)
        print(f"epoch {epoch + 1}/{config.epochs}  loss {losses[-1]:.4f}")
    return model, losses


def knn_accuracy(model: SimSiam, dataset: Dataset, config: Config) -> float:
    """Top-1 accuracy of weighted kNN on the encoder's features of the test images."""
    how = {"normalization": normalization(dataset.train), "compute": compute_for(config)}
    bank = embed(model.encoder, dataset.train, **how)  # (N, F), here the labels come in
    queries = embed(model.encoder, dataset.test, **how)
    return weighted_knn(bank, queries, config.knn).accuracy


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains on the embedded digits and prints what was learned."""
    parser = argparse.ArgumentParser(description="SimSiam on the embedded digits.")
    parser.add_argument("--preset", choices=("digits", "tiny"), default="digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--no-stop-gradient", action="store_true", help="the ablation that lets it collapse"
    )
    options = parser.parse_args(arguments)
    config = preset(
        options.preset,
        epochs=options.epochs,
        stop_gradient=not options.no_stop_gradient,
        precision="fp32",
        device="cpu",
    )
    dataset = load_dataset("mnist5k")
    model, _ = train(dataset.train, config)
    print(f"kNN accuracy on the test digits: {knn_accuracy(model, dataset, config):.1%}")


if __name__ == "__main__":
    main()
