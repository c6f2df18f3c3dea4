"""One run -> images to look at: views, nearest neighbours chosen by rule, a map of the features.

The torch side of the figures: what comes out are the panels of `figures`, plain arrays.

    choice       which images are shown, by rule and seed; images with two views
    plane        features -> places in the plane
    exploration  a run and its data -> neighbours, a gallery, a map and the matrix of mistakes
"""
