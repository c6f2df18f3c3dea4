"""Runs beside each other without a label: who is best, and whether labels would say the same.

In: runs and one data set. Out: `Comparison`: each run's label-free measures, all taken from the
same views of the same images, the ranks that follow, and how far each ranking agrees with kNN and
the linear probe (Kendall's tau), where those are known. Nothing is written into a run.
"""
