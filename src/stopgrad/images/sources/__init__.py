"""Each kind of data set as a `DataSource`; `find` tells which kind a spec is.

arrays       pixels and labels in memory, checked; labels numbered by class
names        names of folders and files -> the split that they mean, and which is scored
files        a folder -> its image files, tables of labels, and all else by reason
layout       image files -> splits and class folders, by their paths
tables       files such as metadata.csv -> the labels of images
folder       a folder of image files, with its splits and labels
shards       names of Parquet files, and which split of which configuration each belongs to
columns      the columns of a Parquet file, and which one holds the images
labels       the column that holds the labels, and its labels as numbers or text
rows         rows of Parquet files, with their images one by one
parquet      Parquet files in the Hub's layout, or any other
hub          an image data set of the Hugging Face Hub
embedded     5,000 MNIST digits inside this package
find         a spec -> its source
"""
