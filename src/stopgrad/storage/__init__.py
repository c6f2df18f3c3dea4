"""Files that are whole or absent, and files of others, read with care.

In: paths, bytes, JSON values. Out: the same, durably, or a `StorageError` that names the path and
what it needed.

    files    atomic writes, reading with bounds, strict JSON, values checked by their types
    lines    files of JSON lines: appended whole, read without a torn last line
    locks    one writer at a time, by a lock that the kernel gives back
    signals  what asks a process to save and end
    text     text of others made safe for terminals, pages and messages
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
