"""Find pickles by what they hold, whatever they are called: loading one runs what it names.

A zip inside an archive is looked into. TorchScript's own pickles are the exception: `torch.jit.load` reads them with a
reader in C++ that knows tensors, lists and the classes that the file itself defines, and imports nothing. One that
names more is refused.
"""

import io
import lzma
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

SUFFIXES = {".pkl", ".pickle", ".pth", ".ckpt", ".joblib", ".dill", ".npy", ".npz"}  # loaded as pickles, or may be
OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}
IMPORTS = {"GLOBAL", "INST", "STACK_GLOBAL"}
MOST_OPERATIONS = 50_000
MOST_PICKLES = 8  # of a file: older torch.save writes five, one after the other
MOST_GROWTH = 4  # of a zip that is looked into; PyTorch's are not compressed
IMPORT = re.compile(r"[\w.]+ [\w.<>]+")  # as weights that only begin like a pickle hardly have one
UNREADABLE = (  # what zipfile raises, and those that decompress for it
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError, OSError,
    ValueError,
)  # fmt: skip
COMPUTED = "by a computed name"
TORCHSCRIPT_FILES = ("data.pkl", "constants.pkl", "version")
TORCHSCRIPT = re.compile(
    r"__torch__(\.\S+)? \S+|torch\._utils _rebuild_\w*tensor\w*|torch \w+Storage|collections OrderedDict"
    r"|torch\.jit\._pickle (build_\w+list|restore_type_tag)"
)


def find_pickle(name: str, data: bytes) -> str | None:
    """Return what is wrong with a file, as the end of a sentence; None where no pickle is found."""
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return f"{name} is a pickle by its name, or may hold one"
    if zipfile.is_zipfile(io.BytesIO(data)):
        return _find_in_zip(name, data)
    found = list_imports(data)
    return None if found is None else f"{name} is a pickle{_names(found)}"


def list_imports(data: bytes) -> list[str] | None:
    """Return what its pickles import, "module name" each; None where it is not a pickle.

    Weights may begin as one does: it is one when it ends where the file does, or imports something.
    """
    stream = io.BytesIO(data)
    found: list[str] = []
    for _ in range(MOST_PICKLES):
        try:
            for text in _read_imports(stream):
                found.append(text)
        except (ValueError, UnicodeDecodeError, OverflowError, MemoryError, IndexError):
            break
        if stream.tell() == len(data):
            return found
    return found or None


def _read_imports(stream: io.BytesIO) -> Iterator[str]:
    """Yield the imports of one pickle; what it imports comes before what is wrong with the rest of it."""
    strings: list[str] = []
    for count, (operation, argument) in enumerate(_read_operations(stream)):
        if isinstance(argument, str) and operation.name not in IMPORTS:
            strings.append(argument)
        elif operation.name == "STACK_GLOBAL":
            if not strings:
                raise ValueError("no text was put on the stack that it could name")  # weights, by chance
            yield f"{COMPUTED}, perhaps {' '.join(strings[-2:])}"
        elif operation.name in IMPORTS and IMPORT.fullmatch(str(argument)):
            yield str(argument)
        if count > MOST_OPERATIONS:
            yield "more than can be looked at"
            return


def _read_operations(stream: io.BytesIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Yield the operations of one pickle.

    A line that only an unpickler understands, for example the integer 0x10, is passed over.
    """
    while True:
        place = stream.tell()
        try:
            for operation, argument, _ in pickletools.genops(stream):
                place = stream.tell()
                yield operation, argument
            return
        except ValueError:
            stream.seek(place)
            code = OPERATIONS.get(stream.read(1).decode("latin-1"))
            if code is None or code.arg is None or code.arg.n != pickletools.UP_TO_NEWLINE or not stream.readline():
                raise
            yield code, None


def _find_in_zip(name: str, data: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            entries = packed.infolist()
            root = entries[0].filename.partition("/")[0] if entries else ""
            is_torchscript = {f"{root}/{name}" for name in TORCHSCRIPT_FILES} <= {entry.filename for entry in entries}
            if sum(entry.file_size for entry in entries) > MOST_GROWTH * len(data):
                return f"{name} is a zip that would grow more than {MOST_GROWTH} times"
            for entry in entries:
                fault = _find_in_entry(entry.filename, packed.read(entry), is_torchscript)
                if fault is not None:
                    return f"{name} holds {fault}"
    except UNREADABLE as error:
        return f"{name} is a zip that cannot be read ({error})"
    return None


def _find_in_entry(name: str, data: bytes, is_torchscript: bool) -> str | None:
    found = list_imports(data)
    if is_torchscript:
        foreign = [text for text in found or () if not TORCHSCRIPT.fullmatch(text)]
        return f"the pickle {name}{_names(foreign)}, as no TorchScript does" if foreign else None
    by_name = PurePosixPath(name).suffix.lower() in SUFFIXES
    return f"the pickle {name}{_names(found or [])}" if by_name or found is not None else None


def _names(imports: list[str]) -> str:
    return f" that imports {', '.join(sorted(set(imports))[:3])}" if imports else ""
