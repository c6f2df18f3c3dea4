"""Imported once by the fork server: all that a command will import, before the first fork.

Its children start with torch in memory. One thread, because a fork copies no others.
"""

import os

import torch

from stopgrad.config import preset
from stopgrad.method import build_optimizer, build_simsiam
from tests.promises.child import load_rooms

torch.set_num_threads(1)
load_rooms()
_config = preset("tiny")
build_optimizer(build_simsiam(_config), _config.optimizer)  # torch imports a second's worth here

assert len(os.listdir("/proc/self/task")) == 1, "a thread would be lost in every fork"
