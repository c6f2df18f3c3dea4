"""Claims about the table of names that other tools give to the knobs."""

import re

import pytest

import stopgrad
from stopgrad.config import config_from_dict, describe_knobs, guess
from stopgrad.config.guesses import GUESSES
from stopgrad.errors import ConfigError

KNOBS = [knob.key for knob in describe_knobs()]
NAMES = [name for names in GUESSES.values() for name in names.split()]


def test_each_name_stands_once_and_is_no_knob() -> None:
    assert len(NAMES) == len({*NAMES})
    assert not {*NAMES} & {*KNOBS}
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in NAMES)


def test_each_answer_names_a_knob_that_there_is_or_says_why_there_is_none() -> None:
    for answer in GUESSES:
        named = answer.removeprefix("here ").split()[0].rstrip(",")
        assert answer[:5] != "here " or named in KNOBS or named[:2] == "--" or named == "stopgrad"
        for path in re.findall(r"[a-z_]+\.[a-z_]+", answer):
            assert path in (*KNOBS, "metrics.jsonl"), answer
        assert ";" not in answer


# What people type, by the tool that taught them, and the knob that they mean.
TYPED = {
    "facebookresearch/simsiam": {
        **{"arch": "encoder.name", "lr": "optimizer.base_lr", "wd": "optimizer.weight_decay"},
        **{"batch-size": "batch", "workers": "threads", "momentum": "optimizer.momentum"},
        **{"dim": "projector.out", "pred-dim": "predictor.hidden", "gpu": "device"},
        **{"fix-pred-lr": "optimizer.predictor_schedule", "learning-rate": "optimizer.base_lr"},
        **{"print-freq": "metrics.jsonl", "resume": "stopgrad resume RUN"},
        **{"multiprocessing-distributed": "device", "weight-decay": "optimizer.weight_decay"},
    },
    "facebookresearch/moco": {
        **{"moco-t": "no temperature", "moco-m": "no momentum encoder", "moco-k": "no negatives"},
        **{"cos": "follows a cosine", "aug-plus": "views.*", "pretrained": "--init"},
    },
    "solo-learn": {
        **{"backbone": "encoder.name", "max_epochs": "epochs", "crop_size": "views.size"},
        **{"num_workers": "threads", "gpus": "device", "precision_": "", "data_dir": "--data"},
        **{"proj_hidden_dim": "projector.hidden", "proj_output_dim": "projector.out"},
        **{"pred_hidden_dim": "predictor.hidden", "min_scale": "views.crop_min"},
        **{"gaussian_prob": "views.blur", "solarization_prob": "no more", "knn_k": "knn.k"},
        **{"gray_scale_prob": "views.grayscale", "color_jitter_prob": "views.jitter"},
        **{
            "scheduler": "follows a cosine",
            "optimizer": "optimizer.algorithm",
            "method": "SimSiam",
        },
        **{"checkpoint_dir": "--out", "temperature": "knn.temperature", "wandb": "--out"},
    },
    "lightly": {
        **{"trainer.max_epochs": "epochs", "loader.batch_size": "batch"},
        **{"collate.input_size": "views.size", "model.name": "--out", "optimizer.lr": "base_lr"},
        **{"loader.num_workers": "threads", "input_dir": "--data", "devices": "device"},
        **{"model": "encoder.name", "out_dim": "projector.out", "accelerator": "device"},
    },
    "timm": {
        **{"img-size": "views.size", "opt": "optimizer.algorithm", "sched": "follows a cosine"},
        **{"warmup-lr": "warmup_epochs", "min-lr": "follows a cosine", "drop-path": "no dropout"},
        **{"clip-grad": "not clipped", "hflip": "views.flip", "vflip": "no more"},
        **{"mixup": "no more", "amp": "precision", "initial-checkpoint": "--init"},
        **{"model-ema": "no momentum encoder", "num-classes": "sees no classes", "j": "threads"},
        **{"output": "--out", "experiment": "--out", "torchcompile": "compile"},
    },
    "torchvision's references": {
        **{"data-path": "--data", "output-dir": "--out", "lr-scheduler": "follows a cosine"},
        **{"lr-warmup-epochs": "warmup_epochs", "label-smoothing": "no smoothing", "b": "batch"},
        **{
            "random-erase": "no more",
            "test-only": "stopgrad evaluate RUN",
            "sync-bn": "batch_norm",
        },
        **{"train-crop-size": "views.size", "use-deterministic-algorithms": "repeatable"},
    },
    "scikit-learn": {
        **{"random_state": "seed", "n_jobs": "threads", "max_iter": "epochs", "verbose": "prints"},
        **{"n_components": "projector.out", "n_neighbors": "knn.k", "early_stopping": "collapse"},
        **{"learning_rate_init": "optimizer.base_lr", "validation_fraction": "validation"},
        **{"solver": "optimizer.algorithm", "batch_size": "batch"},
    },
    "others": {
        **{
            "bs": "batch",
            "t": "no temperature",
            "tau": "no temperature",
            "ema": "momentum encoder",
        },
        **{"dropout": "no dropout", "queue_size": "no negatives", "n_views": "two views"},
        **{
            "nesterov": "momentum",
            "accumulate_grad_batches": "not accumulated",
            "fp16": "precision",
        },
        **{
            "LR": "optimizer.base_lr",
            "num_steps": "counts epochs",
            "save_freq": "checkpoint_every",
        },
        **{
            "val": "stopgrad evaluate RUN",
            "test-data": "--split",
            "valid_dir": "a folder of --data",
        },
        **{"annotations": "a table beside", "labels": "--label-column", "traindir": "here --data"},
        **{"val_split": "validation", "overwrite": "never overwritten", "debug": "--preset tiny"},
    },
}


@pytest.mark.parametrize("tool", TYPED)
@pytest.mark.input(
    kind="command",
    what="a knob under its name in lightly, solo-learn, timm, torchvision or scikit-learn",
    happens="refused; the error names our knob, or says why there is none",
)
def test_what_people_type_is_understood(tool: str) -> None:
    found = {name: guess(name, KNOBS) for name in TYPED[tool]}
    assert {name: said for name, said in found.items() if TYPED[tool][name] not in said} == {}
    assert all(said for name, said in found.items() if TYPED[tool][name])


def test_a_knob_of_a_section_is_named_there() -> None:
    assert guess("finetune.lr", KNOBS) == "here finetune.base_lr, per 256 images of a batch"
    assert guess("supervised.batch-size", KNOBS) == "here supervised.batch"
    assert guess("views.img_size", KNOBS) == "here views.size, the side of a view"
    assert guess("trainer.lr", KNOBS) == "here optimizer.base_lr, per 256 images of a batch"


def test_python_and_files_are_told_the_same() -> None:
    said = r"unknown key lr \(here optimizer\.base_lr, per 256 images of a batch\)"
    with pytest.raises(ConfigError, match=said):
        stopgrad.pretrain("mnist5k", out="never", lr=0.1)
    with pytest.raises(ConfigError, match=r"unknown key optimizer\.lr \(here optimizer\.base_lr"):
        config_from_dict({"optimizer": {"lr": 0.1}})


def test_a_word_that_nobody_uses_gets_the_nearest_knob_or_nothing() -> None:
    with pytest.raises(ConfigError, match=r"unknown key bach \(did you mean batch\?\)"):
        config_from_dict({"bach": 1})
    with pytest.raises(ConfigError, match=r"unknown key xyzzy;"):
        config_from_dict({"xyzzy": 1})


def test_a_wrong_letter_below_a_section_is_no_name_of_another_tool() -> None:
    with pytest.raises(ConfigError, match=r"unknown key views\.blr \(did you mean views\.blur\?\)"):
        config_from_dict({"views.blr": 0.0})
    with pytest.raises(ConfigError, match=r"optimizer\.lr \(here optimizer\.base_lr, per 256"):
        config_from_dict({"optimizer.lr": 0.1})
