"""Read JSON and YAML that a stranger may have written: plain values (of YAML, not too many), or why not in one line."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import yaml

from ddcnn.errors import in_one_line

MOST_YAML = 2**20  # characters
_MOST_VALUES = 100_000
_LONGEST = 4096  # characters of one value: to read a number, or to print it, may take quadratic time


def parse_json(text: str) -> Any:
    """Return the value of JSON text; NaN and infinity, which JSON does not have, are refused.

    Raises
    ------
    ValueError
        One line that says what is wrong.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """Return the value of YAML text: no tags that make Python objects, no aliases that multiply.

    Raises
    ------
    ValueError
        One line that says what is wrong.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"it has {len(text):,} characters, at most {MOST_YAML:,} are read")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES:,} values, those that aliases repeat counted each time")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # "!!bool x" and its like raise anything
        raise ValueError(in_one_line(error)) from None


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number:.40} is too large a number")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _check_keys(node: yaml.MappingNode) -> None:
    """Raise a `ValueError` if a key is there twice: of its values, all but the last would be lost."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            where = f"line {line}" if line == lines[name] else f"lines {lines[name]} and {line}"
            raise ValueError(f"{key.value!r} is there twice, in {where}; leave one out")
        lines[name] = line


def _check_number(node: yaml.ScalarNode) -> None:
    """Raise a `ValueError` if versions of YAML disagree on a number: ``010`` is 8 in YAML 1.1, ``1:30`` is 90."""
    if node.tag.endswith((":int", ":float")) and re.fullmatch(r"[-+]?0[0-9_]*[1-9][0-9_]*|.*:.*", node.value):
        value = yaml.SafeLoader("").construct_object(node)
        raise ValueError(
            f"{node.value} in line {node.start_mark.line + 1} means {value} to some readers of YAML and something else "
            "to others; write the number without leading zeros and colons, or in quotes if it is a name"
        )


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for; more than any limit if it contains itself."""
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > _LONGEST:
                raise ValueError(f"a value has {len(node.value):,} characters, at most {_LONGEST:,} are read")
            _check_number(node)
            children = []
        else:
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
            children = [one for part in node.value for one in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]
