"""The layers at both ends of a network, whatever its graph is written in: int8 leaves these in float.

The first see the pixels and the last give the answer: these few weights cost most of what is lost.
"""

from collections.abc import Hashable, Iterable
from typing import TypeVar

Value = TypeVar("Value", bound=Hashable)


def find_outer(steps: Iterable[tuple[Iterable[Value], Iterable[Value], str | None]]) -> list[str]:
    """Return the names of the layers before which there is no other one, and of those after which there is none.

    steps: what a graph computes, in that order: the values that go in, those that come out, and the layer's name, or
    None for what is no layer. A layer may run several times.
    """
    before: dict[Value, set[str]] = {}  # a value -> the layers that it came through
    layers: dict[str, None] = {}
    first: set[str] = set()
    followed: set[str] = set()
    for sources, results, layer in steps:
        passed = set().union(*(before.get(source, set()) for source in sources))
        if layer is not None:
            layers[layer] = None
            followed |= passed
            first |= set() if passed else {layer}
            passed = passed | {layer}
        before.update(dict.fromkeys(results, passed))
    return [name for name in layers if name in first or name not in followed]
