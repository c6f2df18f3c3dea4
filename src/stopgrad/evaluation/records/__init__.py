"""One JSON line per result: the number, its protocol, its cost, and all that is needed to trust it.

In: a `Record`. Out: a line of `records.jsonl`, appended whole or not at all, and read back.
A line is committed by its newline. JSON is strict: NaN becomes null. No torch.
"""
