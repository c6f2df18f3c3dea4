"""Arms x seeds -> runs -> records -> findings.

A study is data (a YAML file here, or a user's own). Its runs have addresses, so a run is trained
once however many studies share it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
