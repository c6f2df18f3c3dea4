"""Where a study's file is: in the package, by name, or a user's own, by path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.studies.definition import Study
from stopgrad.studies.parse import parse_study

FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""Numbers that YAML 1.1 takes for text, such as 1e-3; YAML 1.2.2, section 10.3.2."""


class StudyFile(NamedTuple):
    """A study as it was read, before its values are checked."""

    values: Mapping[str, Any]
    study: Study
    problems: tuple[str, ...]


def built_in_studies() -> list[str]:
    """The names of the studies that come with the package."""
    return sorted(path.stem for path in _folder().iterdir() if path.suffix == ".yaml")


def study_file(name: str) -> str:
    """The YAML of a study of the package.

    Raises:
        ConfigError: For an unknown name.
    """
    known = built_in_studies()
    if name not in known:
        raise ConfigError(
            f"no study {name!r}{did_you_mean(name, known)}",
            expected=f"one of {', '.join(known)}",
            hint="see them with: stopgrad study list",
        )
    return (_folder() / f"{name}.yaml").read_text()


def read_study(name: str) -> StudyFile:
    """A study of the package by name, or one from a YAML file.

    Raises:
        ConfigError: For an unknown name, or a file that cannot be read as YAML.
    """
    known = built_in_studies()
    path = _folder() / f"{name}.yaml" if name in known else Path(name).expanduser()
    if name not in known and not path.exists():
        raise ConfigError(
            f"no study {name!r}{did_you_mean(name, known)}",
            expected=f"one of {', '.join(known)}, or the path of a YAML file",
            hint="see them with: stopgrad study list",
        )
    values = _read_yaml(path)
    study, problems = parse_study(values, name=path.stem)
    return StudyFile(values, study, tuple(problems))


def _folder() -> Path:
    return Path(str(resources.files("stopgrad"))) / "studies"


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Takes a key as it is written, 1.0e-3 and yes too, because keys are names.

        Refuses a key that stands twice, of which YAML would silently keep the last.
        """

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            if twice := [name for name in names if names.count(name) > 1]:
                raise yaml.YAMLError(f"{twice[0]!r} stands twice,{node.start_mark}")
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
    try:
        values = Loader(path.read_text()).get_single_data()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path} cannot be read ({' '.join(str(error).split())})",
            expected="a YAML file with the fields of a study",
            hint="see one with: stopgrad study list weight-decay",
        ) from error
    return values if isinstance(values, Mapping) else {"(contents)": values}
