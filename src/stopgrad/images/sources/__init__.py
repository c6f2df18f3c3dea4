"""Each kind of data set as a `DataSource`; `find` tells which kind a spec is.

arrays       pixels and labels in memory, checked; labels numbered by class
folder       a folder of image files, with classes by subfolder
parquet      Parquet files in the Hub's layout, and which split each belongs to
hub          an image data set of the Hugging Face Hub
embedded     5,000 MNIST digits inside this package
find         a spec -> its source
"""
