"""One run -> pictures to look at: views, nearest neighbours chosen by rule, a map of the features.

The torch side of the figures: what comes out are the panels of `figures`, plain arrays.
"""
