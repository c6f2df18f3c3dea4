"""Each kind of data set as a `DataSource`; `find` tells which kind a spec is.

arrays       pixels and labels in memory, checked; labels numbered by class
folder       a folder of image files, with classes by subfolder
parquet      Parquet files in the Hub's layout, and which split each belongs to
hub          an image data set of the Hugging Face Hub
array_images arrays of any usual layout and type -> single images
array_files  files of arrays: .npy, .npz, HDF5, .mat, idx, CIFAR's and STL-10's own
array_labels arrays of labels -> labels
array_splits arrays by name -> splits
arrow_files  what an Arrow file offers of a Parquet file, and where those of a data set lie
saved        folders of Arrow files
split_words  names of files and arrays that mention a split
archives     zip and tar files, unpacked into the cache while they are decoded
tars         the members of a tar from first to last
webdataset   shards of samples, read as streams
contained    files that hold many images: which kind it is
several      several data sets as one
held         images that a Python caller holds: arrays, tensors, Pillow images, lists of files
limits       how far a packed file may unpack
embedded     5,000 MNIST digits inside this package
find         a spec -> its source
"""
