"""stopgrad: self-supervised image representations with SimSiam (Chen & He, CVPR 2021).

Pretrain an encoder on images without labels, see whether it collapses, measure it, show it.
Names live in their rooms (`from stopgrad.pretrain import pretrain`), so importing the package
takes no torch.
"""
