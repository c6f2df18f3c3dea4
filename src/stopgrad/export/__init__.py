"""A run -> its encoder, for other tools, with a card that says what it is and how to use it.

torchvision, timm, safetensors: a safetensors file with a JSON card beside it; onnx: an ONNX file
with the same; hub: a folder as the Hugging Face Hub expects. Each is read back by the tool it is
for and compared with our own encoder before it takes its name. The same run gives the same bytes.
docs/reliability.md, decision E.

    write        a run -> files, compared with our own encoder before they take their name
    layouts      how torchvision and timm build the network that the weights fit
    onnx_file    an encoder -> ONNX bytes, and back through onnxruntime
    card         the JSON card: what the weights are, and what to know of their run
    readme       the model card as the Hub expects it
    pretrained   `PretrainedEncoder`: an exported encoder as one object
    embedding    a run and any number of images -> features on disk, resumed after a kill
    tables       those features -> Parquet, CSV or NumPy, whole or absent
    estimator/   `SimSiamEmbedder`: pretraining and embedding inside scikit-learn
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
