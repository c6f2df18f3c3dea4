"""The encoder of a run, and its features, for other tools.

The formats torchvision, timm and safetensors are a safetensors file, onnx an ONNX file, each with a
JSON card beside it; hub is a folder for the Hugging Face Hub. Each is loaded back and compared with
our encoder. The same run gives the same bytes. docs/reliability.md, decision E.

    write        a run -> files, each compared with our own encoder
    formats      encoders as networks of torchvision and timm, and as ONNX files
    card         what the weights are, and what to know about their run: JSON, README.md for the Hub
    pushing      a folder for the Hub -> a repository there
    pretrained   `PretrainedEncoder`: an exported encoder as one object
    places       where features may be written
    embedding    a run and images -> features in one file; continues after a kill
    estimator    `SimSiamEmbedder`: pretraining and embedding inside scikit-learn
    arrays       the X of scikit-learn -> pixels
    fitted       a fitted embedder as plain values and as a file
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
