"""TorchScript files: loaded only where no operator of their programs touches a file.

`torch.jit.load` itself runs code: `__setstate__` of every class that has one. So the source of all classes, methods and
functions is looked at before, as PyTorch's own reader finds it, whether anything calls them or not. What runs so may
not loop either, for nothing ends it.
"""

import ast
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from vision_serving.errors import ConfigError

FILE_OPERATORS = {"save", "from_file", "read_file", "write_file", "load_tensor"}
REMOTE_OPERATORS = {"rpc_async", "rpc_sync", "rpc_remote"}  # of prim
# Those that compute. Others decode files, talk to other machines, or run what is compiled elsewhere.
NAMESPACES = {
    "aten", "prim", "prims", "quantized", "_quantized", "quantization", "quantized_decomposed", "torchvision", "mkl",
    "mkldnn", "mkldnn_prepacked", "onednn", "prepacked", "sparse",
}  # fmt: skip


def load_torchscript(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    """Load a program that only computes. Raises ConfigError for others, and what is no TorchScript."""
    program: torch.jit.ScriptModule | None = None
    try:
        fault = _find_fault_in_file(path)
        if fault is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, and works
                program = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ConfigError(f"{path}: no TorchScript file; write one with torch.jit.save ({reason})") from error
    if program is None:
        raise ConfigError(f"{path}: {fault}; a TorchScript file is a program, and may only compute")
    return program


def _find_fault_in_file(path: Path) -> str | None:
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    # PyTorch looks names up without regard to case. The form of 1.0 names its code files as it likes.
    if max(Counter(name.lower() for name in names).values(), default=0) > 1 or "model.json" in map(str.lower, names):
        return "it has a file twice, or the form of PyTorch 1.0"
    nodes = []
    for name in names:
        if not name.lower().endswith(".py"):
            continue
        try:
            nodes.append(list(ast.walk(ast.parse(reader.get_record(name).decode()))))  # written as Python is
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"{name} cannot be read ({error})"
        fault = _find_fault(nodes[-1])
        if fault is not None:
            return f"{name} {fault}"
    return _find_loop(node for module in nodes for node in module if isinstance(node, ast.FunctionDef))


def _find_loop(functions: Iterable[ast.FunctionDef]) -> str | None:
    """Return which loop may run when the file is loaded, as the end of a sentence.

    Functions are told by their names alone: one that loops counts where any of its name could be called.
    """
    parts: dict[str, list[ast.AST]] = {}
    for function in functions:
        parts.setdefault(function.name, []).extend(ast.walk(function))
    called, seen = ["__setstate__"], set[str]()
    while called:
        name = called.pop()
        seen.add(name)
        for node in parts.get(name, ()):
            if isinstance(node, (ast.While, ast.For, ast.comprehension)):
                return f"its {name} has a loop, which runs when the file is loaded"
            named = getattr(node, "attr", None) or getattr(node, "id", None)
            if named in parts and named not in seen:
                called.append(named)
    return None


def _find_fault(nodes: Sequence[ast.AST]) -> str | None:
    """Return what a source does beyond computing, as the end of a sentence."""
    computes = set()  # places of the name `ops` in `ops.aten`, and so on
    for node in nodes:
        # Also as `f = torch.save` and as getattr(torch, "save"), which TorchScript takes.
        if isinstance(node, ast.Attribute) and node.attr in FILE_OPERATORS:
            return f"uses {ast.unparse(node)[:80]}, which reads or writes files"
        if isinstance(node, ast.Constant) and node.value in FILE_OPERATORS:
            return f"names {node.value!r}, which reads or writes files"
        if isinstance(node, ast.Attribute) and node.attr in REMOTE_OPERATORS:
            return f"uses {ast.unparse(node)[:80]}, which asks other machines"
        if isinstance(node, ast.Constant) and node.value in REMOTE_OPERATORS:
            return f"names {node.value!r}, which asks other machines"
        if isinstance(node, ast.Attribute) and node.attr in NAMESPACES:
            computes.add(id(node.value))
        if isinstance(node, ast.Name) and node.id == "ops" and id(node) not in computes:
            return f"uses operators other than those of {', '.join(sorted(NAMESPACES))}"
    return None
