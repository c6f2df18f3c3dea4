"""Sources of images -> `Images`: uint8 pixels, labels or none, class names, a fingerprint.

In: a spec (a known name, `hf:OWNER/NAME`, a path) or arrays. Out: `Dataset`, `Images`
(N, H, W, 3), in memory or on disk, splits, label subsets, and the training set's mean and std;
`check_images` describes the images. Importing this takes NumPy alone; pyarrow, Pillow
and the Hub's client are imported when a data set needs them.

    pixels       files of pixels, mapped into memory
    types        images in memory or on disk, data sets, and what a source offers
    depth        samples of more than 8 bits -> 8 bits, by levels of the whole set
    extras       a PNG or JPEG stripped of texts, profiles and thumbnails
    packages     optional packages that read more kinds of images
    tiff         TIFF of any samples
    dicom        the first frame of a DICOM file
    formats      files that Pillow does not open: TIFF, HEIC, DICOM
    opening      an encoded image -> an open one, within limits of size and memory
    decoding     one encoded image -> pixels, strictly
    gather       whole splits, decoded on all cores in one size; damaged images
    unread       the pages and bands of files that are not read, as notes
    splits       validation split, label subsets, mean and std
    manifest     the manifest of a store, each value checked
    store        the one home of decoded pixels: its files, opened
    writing      the files of a store, written
    sources/     each kind of data set, and which kind a spec is
    packing      stores that the user asks for: packed, compared, verified
    load         a spec -> a `Dataset`, cached as stores under $STOPGRAD_CACHE
    loose        a few image files, as if they belonged to a data set
    inspect      what the images of a data set are like
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
