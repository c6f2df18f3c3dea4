"""The investigations as data, a YAML file each; `stopgrad.study.parse` says what the fields mean.

Source of the published numbers: the CIFAR-10 report that stopgrad reproduces (mean and standard
deviation over 5 seeds, in percent) and Chen & He, CVPR 2021.
"""
