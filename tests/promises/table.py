"""All promises, in the order of docs/reliability.md, with the tries of a commit and of --full."""

from tests.promises import (
    bombs,
    collapse,
    configuration,
    crashpoints,
    damage,
    data,
    determinism,
    disk,
    divergence,
    foreign,
    guards,
    hostile,
    kill,
    lock,
    memory,
    pages,
    signals,
    source,
    surroundings,
)
from tests.promises.outcome import Promise

EACH = -1  # tries: every point there is
STUDIES = "tests/studies/test_study_reliability.py tests it"
ARCHIVES = "tests/images/inputs/test_archives.py and test_container_mutants.py test it"

PROMISES = (
    Promise("R1", "kill -9 at any moment", kill.check, 10, 100, 5, together=kill.enough_in_saves),
    Promise("R2", "every crash point", crashpoints.check, 0, EACH, crashpoints.PARTS),
    Promise("R3", "order on disk", crashpoints.order, 0, 3),
    Promise("R4", "bit rot", damage.check, 30, 300, 10),
    Promise("R5", "SIGTERM, SIGINT", signals.check, 4, 60, 5),
    Promise("R6", "disk full or read-only", disk.check, 3, 21),
    Promise("R7", "divergence", divergence.check, 1, 10),
    Promise("R8", "collapse", collapse.check, 0, 40, 10),
    Promise("R9", "damaged images", data.check, 0, 1000),
    Promise("R10", "out of memory, stopped workers", memory.check, 0, 19),
    Promise("R11", "determinism", determinism.check, 4, 24, 3),
    Promise("R12", "observers do not perturb", determinism.observe, 3, 6),
    Promise("R13", "one writer", lock.check, 5, 50, 5),
    Promise("R14", "resume guards", guards.check, 8, 8),
    Promise(
        "R15",
        "study with failing runs",
        None,
        0,
        0,
        why_not=STUDIES,
    ),
    Promise("R16", "partial results", None, 0, 0, why_not=STUDIES),
    Promise("R18", "untrusted checkpoints", hostile.check, 12, len(hostile.HOSTILE), 4),
    Promise("R19", "archives", None, 0, 0, why_not=ARCHIVES),
    Promise("R20", "HTML", pages.check, 1, len(pages.PAYLOADS), 3),
    Promise("R21", "configuration", configuration.check, 200, 2000, 10),
    Promise("R22", "Parquet and labels", data.parquet, 0, 5000, 10),
    Promise("R23", "old checkpoints", None, 0, 0, why_not="no release has been made yet"),
    Promise("R25", "source scan", source.check, 1, 1),
    Promise("R31", "stores of others", foreign.stores, 3, len(foreign.STORES)),
    Promise("R32", "bombs", bombs.check, 4, len(bombs.BOMBS)),
    Promise("R33", "limits", bombs.limits, 2, len(bombs.NUMBERS)),
    Promise("R34", "no home", surroundings.homes, 2, 4),
    Promise("R35", "names that terminals and spreadsheets obey", foreign.text, 4, 4),
    Promise("R36", "records of others", foreign.records, 2, len(foreign.RECORDS)),
    Promise("R37", "removed folders, links to nowhere, rotten blocks", surroundings.smaller, 0, 3),
)
