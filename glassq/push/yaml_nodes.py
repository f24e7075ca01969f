"""YAML as a tree of nodes that know their lines, so that every mistake in a file can be reported with its line.

No objects are made of the nodes: aliases stay references, tags stay names, and a scalar stays the text in the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from glassq.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Aliases and merge keys unfold a small file into a large one; no more keys and values than this are read.
MAX_STEPS = 100_000
# After this many mistakes the rest of the file is not read.
MAX_MISTAKES = 50
# Maximum length of a wrong value in a message, in characters.
MAX_SHOWN = 60

_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
_KINDS: dict[type[yaml.Node], str] = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list"}

# A key's own node, which knows its line, and the node of its value.
KeyAndValue = tuple[yaml.Node, yaml.Node]


def compose(text: str, file: str) -> yaml.Node | None:
    """The root node; None for an empty file. `file` is the name in messages. Raises SettingsError if it is not YAML."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _not_yaml(text, file, mark.line if mark else 0, (error.problem or "")[:200]) from None
    except yaml.reader.ReaderError as error:
        raise _not_yaml(text, file, text.count("\n", 0, error.position), error.reason) from None
    except RecursionError:
        raise SettingsError(f"{file}: is nested too deep") from None
    except (ValueError, OverflowError) as error:
        # PyYAML's own slips: "\UFFFFFFFF" is not a character, a %YAML version of thousands of digits not an int
        raise SettingsError(f"{file}: is not YAML: {str(error)[:200]}") from None


def _not_yaml(text: str, file: str, index: int, why: str) -> SettingsError:
    """The error for the line with this index (from 0), with the line itself unless it is blank."""
    line = (text.splitlines() or [""])[index : index + 1]
    shown = f": {quoted(line[0])}" if line and line[0].strip() else ""
    return SettingsError(f"{file}:{index + 1}: is not YAML: {why}{shown}")


def is_null(node: yaml.Node | None) -> bool:
    """Whether nothing stands there."""
    return node is None or node.tag == _NULL


def line_of(node: yaml.Node) -> int:
    """The line in the file, from 1."""
    return int(node.start_mark.line) + 1


def quoted(text: str) -> str:
    """The text in quotes, shortened. JSON's escapes keep any text on one line."""
    return json.dumps(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")


def shown(node: yaml.Node) -> str:
    """What to write behind the key of a wrong value: ' = "5/x"', or " is a list"."""
    kind = _KINDS.get(type(node))
    return f" is {kind}" if kind else f" = {quoted(node.value)}"


@dataclass(slots=True)
class Mistakes:
    """The mistakes found in one file."""

    file: str
    _found: list[tuple[int, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, node: yaml.Node, text: str) -> None:
        """Adds one, at the node's line. Raises SettingsError with all of them after MAX_MISTAKES."""
        self._found.append((line_of(node), text))
        if len(self._found) == MAX_MISTAKES:
            raise self.error()

    def error(self) -> SettingsError:
        """All mistakes found, sorted by line."""
        lines = [f"{self.file}:{line}: {text}" for line, text in sorted(self._found, key=lambda found: found[0])]
        if len(lines) == MAX_MISTAKES:
            lines.append(f"{self.file}: the rest was not looked at")
        return SettingsError("\n".join(lines))


class FieldReader:
    """Reads the mappings of one file, merge keys (<<) included."""

    def __init__(self, mistakes: Mistakes) -> None:
        self._mistakes = mistakes
        self._steps = 0

    def read(self, node: yaml.Node, place: str, expected: str) -> dict[str, KeyAndValue]:
        """The keys of a mapping; its own keys override merged ones.

        `place` is where it stands, for messages ('queue "x": '), and `expected` what the node should be.
        Raises SettingsError after MAX_STEPS keys and values.
        """
        fields: dict[str, KeyAndValue] = {}
        if not isinstance(node, yaml.MappingNode):
            self._mistakes.add(node, f"{place}expected {expected}")
            return fields
        for mapping in self._with_merged(node, place):
            own = set()
            for key, value in mapping.value:
                self._step()
                name = key.value if isinstance(key, yaml.ScalarNode) else None
                if name is None:
                    self._mistakes.add(key, f"{place}a key is {_KINDS[type(key)]}: expected a word")
                elif name in own:
                    self._mistakes.add(key, f"{place}{quoted(name)[1:-1]} is there twice")
                elif key.tag != _MERGE:
                    own.add(name)
                    fields.setdefault(name, (key, value))
        return fields

    def _with_merged(self, node: yaml.MappingNode, place: str) -> Iterator[yaml.MappingNode]:
        """The mapping and those that it merges, nearest first; each only once, because a mapping may merge itself."""
        waiting, seen = [node], set()
        while waiting:
            mapping = waiting.pop()
            if id(mapping) in seen:
                continue
            seen.add(id(mapping))
            yield mapping
            waiting += reversed(list(self._merged_into(mapping, place)))

    def _merged_into(self, mapping: yaml.MappingNode, place: str) -> Iterator[yaml.MappingNode]:
        for key, value in mapping.value:
            if key.tag != _MERGE:
                continue
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                self._step()
                if isinstance(part, yaml.MappingNode):
                    yield part
                else:
                    self._mistakes.add(part, f"{place}<<{shown(part)}: expected a mapping, or a list of mappings")

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise SettingsError(
                f"{self._mistakes.file}: unfolds to more than {MAX_STEPS} keys and values: expected fewer aliases"
            )
