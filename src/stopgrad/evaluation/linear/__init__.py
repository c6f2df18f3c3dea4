"""The linear probe: softmax regression on frozen features, by SGD or LARS.

In: training and test `Features`. Out: a `Score`.
Paper: Sec. 4 and Appendix A (LARS, base lr 0.02, batch 4096, 90 epochs). Report: SGD, base lr
30, batch 256, 90 epochs. Features are standardised first; `standardize` says why.
"""
