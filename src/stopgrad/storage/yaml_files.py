"""YAML that a user wrote or got from somebody -> plain values, without any that take for ever.

In: the path of a regular file, perhaps through a link. Out: its value. A few bytes of YAML can
stand for a value of any size, as an alias repeats its anchor; here all values are counted first.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stopgrad.errors import ConfigError
from stopgrad.storage.reading import read_file
from stopgrad.storage.text import in_short

LARGEST = 1 << 20  # bytes of a file
MOST_VALUES, DEEPEST = 50_000, 20  # keys and values, counted at each occurrence
LONGEST_NUMBER = 100  # characters; reading one such as 1:1:1:... takes quadratic time
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""Numbers that YAML 1.1 takes for text, such as 1e-3; YAML 1.2.2, section 10.3.2."""


def read_yaml(path: Path, *, expected: str, hint: str = "") -> Any:
    """The value of a file.

    Keys are taken as they are written, even 1.0e-3 and yes, because keys are names. A key that
    appears twice is refused; YAML would silently keep the last.

    Args:
        path: The file.
        expected: What it should be, for the error.
        hint: The next step, for the error.

    Raises:
        ConfigError: When it cannot be read, or stands for more than a person would write.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise yaml.YAMLError(f"{twice!r} appears twice,{node.start_mark}")
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
    try:
        loader = Loader(read_file(path.resolve(), most=LARGEST).decode())
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node)
        return loader.construct_document(node)
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else in_short(error)
        raise ConfigError(
            f"{path} cannot be read ({reason})", expected=expected, hint=hint
        ) from error


def _count(node: Any, *, above: int = 0) -> int:
    """How many keys and values a node stands for; a ValueError for too many."""
    if above > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    total, parts = 1, node.value if isinstance(node.value, list) else []
    if not parts and not node.tag.endswith(":str") and len(node.value) > LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(node.value):,} characters")
    for part in parts:
        for each in part if isinstance(part, tuple) else (part,):
            total += _count(each, above=above + 1)
            if total > MOST_VALUES:
                raise ValueError(f"it holds more than {MOST_VALUES:,} values")
    return total
