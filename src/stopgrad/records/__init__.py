"""One JSON line per result: the number, its protocol, its cost, and all that is needed to trust it.

In: a `Record`. Out: a line of `records.jsonl`, appended whole or not at all, and read back.
A line is committed by its newline. JSON is strict: NaN becomes null. No torch.
"""

from stopgrad.records.cost import (
    Costs,
    Meter,
    Spent,
    append_cost,
    energy,
    read_costs,
    start_meter,
)
from stopgrad.records.environment import (
    Environment,
    code_version,
    device_name,
    environment,
    versions,
)
from stopgrad.records.lines import append, append_line, read, read_as
from stopgrad.records.record import (
    ACCURACIES,
    FINETUNE,
    FROZEN,
    MEASURES,
    SUPERVISED,
    Energy,
    Key,
    Record,
    Subject,
    from_line,
    key_of,
    newest,
    to_line,
)

__all__ = [
    "ACCURACIES",
    "FINETUNE",
    "FROZEN",
    "MEASURES",
    "SUPERVISED",
    "Costs",
    "Energy",
    "Environment",
    "Key",
    "Meter",
    "Record",
    "Spent",
    "Subject",
    "append",
    "append_cost",
    "append_line",
    "code_version",
    "device_name",
    "energy",
    "environment",
    "from_line",
    "key_of",
    "newest",
    "read",
    "read_as",
    "read_costs",
    "start_meter",
    "to_line",
    "versions",
]
