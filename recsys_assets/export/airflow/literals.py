"""Values as Python source.

What belongs here: how a value is written. What does not: line breaks between values and the choice
of quotes, which the formatter sees to.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 80  # of a piece of a long text
_BREAK = re.compile(r"(?<=[ \n])(?=[^ \n])|(?<=\))(?=\[)")  # before a word, or an index in Jinja


class Code(str):
    """Source that stands for itself: the name of a constant, an expression."""

    __slots__ = ()


class Lines(tuple[str, ...]):
    """A text of which each part is to have a line of its own in the source."""

    __slots__ = ()


def source(value: Any) -> str:
    """Return the source of a value made of JSON's types, :class:`Code` and :class:`Lines`."""
    match value:
        case Code():
            return str(value)
        case Lines():
            return _joined(value)
        case str():
            return _text(value)
        case Mapping():
            return "{" + ", ".join(f"{source(k)}: {source(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(source, value)) + "]"
        case _:
            return repr(value)


def arguments(values: Mapping[str, Any]) -> str:
    """Return the source of keyword arguments, each of which is to have a line."""
    return "".join(f"{name}={source(value)}, " for name, value in values.items())


def _text(text: str) -> str:
    """Return a string literal, in several pieces if it is long or has several lines."""
    pieces = [""]
    for word in _BREAK.split(text):
        if pieces[-1].endswith("\n") or len(pieces[-1]) + len(word) > _WIDTH:
            pieces.append("")
        pieces[-1] += word
    return _joined(pieces)


def _joined(pieces: Sequence[str]) -> str:
    literals = [repr(piece) for piece in pieces if piece] or ["''"]
    return literals[0] if len(literals) == 1 else f"({' '.join(literals)})"
