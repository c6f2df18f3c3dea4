"""Which Parquet files belong to which split."""

import pytest

from stopgrad.errors import DataError
from stopgrad.images.sources.shards import Shards, choose_shards, place_of


def shards(*paths: str, config: str | None = None, split: str = "") -> Shards:
    places = [place for path in paths if (place := place_of(path))]
    return choose_shards(places, config=config, split=split, where="here")


def test_layouts_of_the_hub() -> None:
    assert shards("README.md", "plain_text/train-00000-of-00001.parquet", "x.csv").train == (
        "plain_text/train-00000-of-00001.parquet",
    )
    found = shards("data/train-00000-of-00001-abc123.parquet", "data/test.parquet")
    assert (found.train, found.scored, found.others) == (
        ("data/train-00000-of-00001-abc123.parquet",), {"test": ("data/test.parquet",)}, {},
    )  # fmt: skip
    found = shards("default/train/0001.parquet", "default/train/0000.parquet")
    assert found.train == ("default/train/0000.parquet", "default/train/0001.parquet")
    found = shards("trainer.parquet", "train.parquet")
    assert (found.train, found.others) == (("train.parquet",), {"trainer": ("trainer.parquet",)})


def test_test_split_is_tried_before_validation_and_others_not_at_all() -> None:
    train, valid, test, extra = (
        f"{name}.parquet" for name in ("train", "valid-x", "test", "extra")
    )
    assert [*shards(train, valid, test, extra).scored] == ["test", "valid-x"]
    assert [*shards(train, valid, test, extra).others] == ["extra"]
    assert [*shards(train, valid).scored] == ["valid-x"]
    assert shards(train).scored == {}
    assert shards(train, valid, test, extra, split="extra").scored == {"extra": (extra,)}


def test_configuration_is_asked_for_where_several_leave_the_choice_open() -> None:
    paths = ("big/train.parquet", "small/train.parquet")
    with pytest.raises(DataError, match="several configurations in here; expected one of big, sma"):
        shards(*paths)
    assert shards(*paths, config="small").train == ("small/train.parquet",)
    assert shards(*paths, "default/train.parquet").train == ("default/train.parquet",)
    with pytest.raises(DataError, match="configuration 'tiny' of here"):
        shards(*paths, config="tiny")


def test_missing_shard_is_noticed() -> None:
    with pytest.raises(DataError, match="2 of 3 files"):
        shards("train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
