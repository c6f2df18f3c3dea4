"""Files that are whole or absent, and other people's files, read with care.

In: paths, bytes, JSON values. Out: the same, durably, or a `StorageError` that names the path and
what it needed.

    inside      paths below a run or a study, where no link is followed
    reading     regular files alone, within bounds; a failing read is tried again
    locks       locks on open files, by the system's own means
    text        other people's text, made safe for terminals, tables and messages
    files       atomic writes and the lock of a run; JSON by the types of a class
    lines       files of JSON lines: appended whole, read without a torn last line
    yaml_files  YAML of users, limited to what a person would write
    process     signals that ask to save and end, output that may be lost, threads
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
