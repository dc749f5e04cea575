"""Constants of a module, read from its source. A backend's module cannot be imported where its runtime is missing."""

import ast
from pathlib import Path
from typing import Any


def read_constant(file: Path, name: str, default: Any = None) -> Any:
    """Return the literal that a Python file assigns to a name at its top level, or the default where it has none."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if name in map(ast.unparse, targets):
            return ast.literal_eval(value)
    return default
