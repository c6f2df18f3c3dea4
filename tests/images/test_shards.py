"""Which Parquet files belong to which split."""

import pytest

from stopgrad.errors import DataError
from stopgrad.images.sources.shards import choose_shards, place_of


def shards(*paths: str, config: str | None = None):
    places = [place for path in paths if (place := place_of(path))]
    return choose_shards(places, config=config, where="here")


def test_layouts_of_the_hub():
    assert shards("README.md", "plain_text/train-00000-of-00001.parquet", "x.csv").train == (
        "plain_text/train-00000-of-00001.parquet",
    )
    assert shards("data/train-00000-of-00001-abc123.parquet", "data/test.parquet").scored == {
        "test": ("data/test.parquet",)
    }
    found = shards("default/train/0001.parquet", "default/train/0000.parquet")
    assert found.train == ("default/train/0000.parquet", "default/train/0001.parquet")
    assert shards("trainer.parquet", "train.parquet").train == ("train.parquet",)


def test_test_split_wins_over_validation_which_wins_over_none():
    train, valid, test = "train.parquet", "valid-x.parquet", "test.parquet"
    assert shards(train, valid, test).scored == {"test": (test,), "valid-x": (valid,)}
    assert shards(train, valid).scored == {"valid-x": (valid,)}
    assert shards(train).scored == {}


def test_configuration_is_asked_for_where_several_leave_the_choice_open():
    paths = ("big/train.parquet", "small/train.parquet")
    with pytest.raises(DataError, match="several configurations in here; expected one of big, sma"):
        shards(*paths)
    assert shards(*paths, config="small").train == ("small/train.parquet",)
    assert shards(*paths, "default/train.parquet").train == ("default/train.parquet",)
    with pytest.raises(DataError, match="configuration 'tiny' of here"):
        shards(*paths, config="tiny")


def test_missing_shard_is_noticed():
    with pytest.raises(DataError, match="2 of 3 files"):
        shards("train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
