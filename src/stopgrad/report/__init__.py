"""Runs and studies -> one self-contained page, a poster, and the figures as files.

In: run directories and study directories, and panels of pictures that the caller prepared where
torch is at home. Out: an HTML file that asks no network for anything. No torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
