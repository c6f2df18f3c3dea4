"""Claims about `layers`."""

import copy

import torch
from torch import nn

from stopgrad.config import torch_generator
from stopgrad.method.layers import split_views_in


def test_a_bn_in_two_places_of_a_backbone_normalises_each_view_in_both() -> None:
    bn = nn.BatchNorm2d(3)
    whole = nn.Sequential(bn, nn.ReLU(), bn)
    split = copy.deepcopy(whole)
    split_views_in(split)
    assert split.state_dict().keys() == whole.state_dict().keys()
    x = torch.randn(6, 3, 5, 5, generator=torch_generator(0, "x"))
    by_hand = nn.functional.batch_norm
    views = [
        by_hand(by_hand(v, None, None, training=True).relu(), None, None, training=True)
        for v in x.chunk(2)
    ]
    torch.testing.assert_close(split(x), torch.cat(views))
