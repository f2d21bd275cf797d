"""YAML files of users: numbers such as 3e-4 are numbers, and errors name the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError

# YAML 1.1, which PyYAML reads, wants 3.0e-4; YAML 1.2 and everybody who writes one take 3e-4 as well
FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")


def read_yaml(path: str | Path) -> Any:
    """Read a YAML (or JSON) file.

    Raises:
        UsageError: it is missing or no YAML; the message has the line.
    """
    import yaml

    path = Path(path)

    class Loader(yaml.SafeLoader):
        """SafeLoader with the numbers of YAML 1.2."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"{path}{line} is no YAML: {getattr(error, 'problem', None) or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text: {error}") from error
