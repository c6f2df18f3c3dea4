"""A run -> its encoder, for other tools, with a card that says what it is and how to use it.

torchvision, timm, safetensors: a safetensors file with a JSON card beside it; onnx: an ONNX file
with the same; hub: a folder as the Hugging Face Hub expects. Each is read back by the tool it is
for and compared with our own encoder before it takes its name. The same run gives the same bytes.
docs/reliability.md, decision E.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
