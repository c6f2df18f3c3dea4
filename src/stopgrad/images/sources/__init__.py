"""Each kind of data set as a `DataSource`; `find` tells which kind a spec is.

arrays        pixels and labels in memory, checked
labels        labels as found in the data, numbered by class
names         names of folders, files and columns -> the split that they mean, or labels
files         a folder -> its image files, tables of labels, and all else by reason
named_splits  splits found by words in names -> those that are read
endings       endings and first bytes of files -> their kind, of one image or of many
masks         image files that are masks or thumbnails of other images
layout        image files -> splits and class folders, by their paths
table_files   a table of any format -> its columns
table_columns columns of a table -> the one that names images, and the labels
tables        files such as metadata.csv -> the labels of images
folder        a folder of image files, with its splits and labels
shards        names of Parquet files, and which split of which configuration each belongs to
pages         the unpacked size of the pages of a Parquet file, whatever its footer says
columns       the columns of a Parquet file, and which one holds the images
label_columns the column of a Parquet file that holds the labels, and those labels
rows          rows of Parquet files, with their images one by one
parquet       Parquet files in the Hub's layout, or any other
hub           an image data set of the Hugging Face Hub
array_images  arrays of any usual layout and type -> single images
array_files   files of arrays: .npy, .npz, HDF5, .mat, idx, CIFAR's and STL-10's own
array_splits  arrays by name -> splits
arrow_files   Arrow files, with the interface of Parquet files
archives      zip and tar files, unpacked into the cache while they are decoded
tars          the members of a tar from first to last
webdataset    shards of samples, read as streams
contained     a file that holds many images, or a folder of such files -> its source
several       several data sets as one
items         an item of a sequence that a Python caller holds -> its image and its label
held          images that a Python caller holds: arrays, tensors, Pillow images, lists of files
limits        how far a packed file may unpack
embedded      5,000 MNIST digits inside this package
find          a spec -> its source
"""
