"""SimSiam inside scikit-learn: `SimSiamEmbedder().fit(images).transform(images)`, without labels.

In: pictures as arrays, paths or Pillow images. Out: features (N, F) float32 of a frozen encoder.
Needs the extra `sklearn`.
"""

from stopgrad.errors import ConfigError

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as _error:
    raise ConfigError(
        "stopgrad.export.SimSiamEmbedder without scikit-learn",
        expected="scikit-learn to be installed",
        hint="pip install 'stopgrad[sklearn]'",
    ) from _error
