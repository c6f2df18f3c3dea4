"""The promises of docs/reliability.md (R1 and on), tested from outside by the command line.

One module per promise, or two where they share their tools: a function `check(lab, tries)` that
does real damage to real processes and comes back with an `Outcome`, which holds the failures and
what the negative controls found. `python -m tests.promises` runs them all, and
`test_promises` the quick set. Nothing here looks into the product; only `broken` does, to break it
on purpose.
"""
