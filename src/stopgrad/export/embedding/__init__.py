"""A run and Images of any number -> their features in a file: Parquet, CSV or NumPy.

The features are those of the encoder (or of the projector) in fp32, in eval mode, for pictures that
are only normalised: what every export gives. Memory holds a few blocks of pictures. Blocks that are
done stay on disk until all are, so a run that was killed goes on; the file appears whole or not.
"""
