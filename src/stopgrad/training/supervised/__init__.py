"""The baseline from scratch: labelled images -> the same encoder with one linear layer, its score.

In: a share of the labels and the test images (`draw_share`). Out: an `Epoch` at a time; the last
one brings the score on the whole test set. `finetune` trains by the same loop. All randomness is a
function of (seed, step), so a training that is killed and goes on takes the same steps.
Report: the supervised network of its label study.
"""
