"""Archives that must be refused, each with its own reason: made from a good one, which is not changed otherwise.

Where the fault is in a file, all else is right: the digests, and the verification's digest of the artifact.
"""

import hashlib
import io
import pickle
import random
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
import yaml

from lab.hostile.raw_zip import FILE_MODE, RawEntry, write_raw_zip
from mar_tools.archives.archive import DIGESTS, MANIFEST
from mar_tools.archives.checks import CONFIG, VERIFICATION
from mar_tools.archives.digests import combine_digests, select_artifact
from mar_tools.archives.zip_form import encode_archive

Contents = dict[str, bytes]
BOMB = bytes(64 << 20)
EVIL = "evil.txt"


@dataclass(frozen=True)
class HostileArchive:
    """reason: a part of what is said of it."""

    data: bytes
    reason: str


class Shout:
    """What a pickle can do: run a function when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("loaded",)


def make_hostile_archives(good: bytes) -> dict[str, HostileArchive]:
    """Make hostile archives by their names. good: a small archive of ours with an OpenVINO artifact, to be copied."""
    with zipfile.ZipFile(io.BytesIO(good)) as packed:
        contents = {name: packed.read(name) for name in packed.namelist()}
    cases = (*_damaged(good), *_misformed(contents), *_incomplete(contents), *_with_pickles(contents))
    return {name: HostileArchive(data, reason) for name, data, reason in cases}


Case = tuple[str, bytes, str]


def _damaged(good: bytes) -> Iterator[Case]:
    flipped = bytearray(good)
    flipped[good.index(b"VisionHandler")] ^= 1
    yield "random bytes", random.Random(0).randbytes(4096), "no zip file"
    yield "empty", b"", "it is empty"
    yield "cut in half", good[: len(good) // 2], "it is cut"
    yield "cut by a byte", good[:-1], "it is cut"
    yield "bad CRC", bytes(flipped), "is damaged"
    yield "prefix", b"#!/bin/sh\n" + good, "precede it"
    yield "suffix", good + b"more", "something follows its end"
    yield "comment", good[:-2] + b"\4\0more", "something follows its end"


def _misformed(contents: Contents) -> Iterator[Case]:
    entries = [RawEntry(name, contents[name]) for name in sorted(contents)]
    evil = RawEntry(EVIL, b"evil")
    last = entries[-1]

    def added(*extra: RawEntry) -> bytes:
        return write_raw_zip([*entries, *extra])

    def changed(**fields: Any) -> bytes:
        return write_raw_zip([*entries[:-1], replace(last, **fields)])

    yield "hidden entry", write_raw_zip([replace(evil, listed=False), *entries]), "hides an entry"
    yield "hidden entry at the end", added(replace(evil, listed=False)), "hides an entry"
    yield "gap", changed(before=bytes(16)), "belong to no entry"
    yield "other name in the header", changed(local_name="x" * len(last.name)), "its header has another name"
    yield "other size in the header", changed(local={"size": 1}), "its header says other than the directory"
    yield "other method in the header", changed(local={"method": 8}), "its header says other than the directory"
    yield "overlapping entries", added(replace(evil, at=0)), "overlaps another"
    yield "duplicate", added(evil, evil), "are one file"
    yield "duplicate by case", added(evil, RawEntry("EVIL.txt", b"")), "are one file"
    yield "duplicate by normalisation", added(RawEntry("\u00e9.txt", b""), RawEntry("e\u0301.txt", b"")), "are one file"
    yield "file as a folder", added(RawEntry("evil", b""), RawEntry("evil/inside", b"")), "is a file, and the folder of"
    yield "path traversal", added(RawEntry("../../evil.py", b"")), "leads out of its folder"
    yield "traversal within", added(RawEntry("a/../../evil.py", b"")), "leads out of its folder"
    yield "absolute path", added(RawEntry("/tmp/evil.py", b"")), "is an absolute path"
    yield "drive letter", added(RawEntry("C:evil.py", b"")), "characters that no name should have"
    yield "backslash", added(RawEntry("..\\evil.py", b"")), "characters that no name should have"
    yield "NUL in a name", added(RawEntry("evil\0.py", b"")), "characters that no name should have"
    yield "symbolic link", added(RawEntry("link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)), "is a symbolic link"
    yield "device", added(RawEntry("null", b"", mode=stat.S_IFCHR | 0o666)), "is a special file"
    yield "setuid", added(replace(evil, mode=FILE_MODE | stat.S_ISUID)), "has a special mode"
    yield "encrypted", changed(both={"flags": 0x1}), "is encrypted"
    yield "data descriptor", changed(both={"flags": 0x8}), "a data descriptor"
    yield "zip64", changed(extra=struct.pack("<2H2Q", 1, 16, 4, 4)), "an extra field 0x0001"
    yield "second name", changed(extra=struct.pack("<2H5s", 0x7075, 5, b"\1abcd")), "an extra field 0x7075"
    yield "bomb by ratio", added(replace(evil, data=BOMB, packed=_deflate(BOMB), both={"method": 8})), "(a bomb)"
    large = {"method": 8, "size": 0xFFFFFFF0}
    bombs = (RawEntry(f"{number}", b"", packed=b"x", both=large) for number in range(5))
    yield "bomb by size", added(*bombs), "would be over 16 GiB"
    lying = replace(evil, data=BOMB, packed=_deflate(BOMB), both={"method": 8, "size": 1000})
    yield "bomb with a forged size", added(lying), "is damaged"
    yield "compressed", changed(packed=_deflate(last.data), both={"method": 8}), "was not written by build_model.py"
    yield "other time", changed(both={"time": 1}), "was not written by build_model.py"
    yield "other mode", changed(mode=0o100755), "its directory was not written by build_model.py"
    yield "other order", write_raw_zip(entries[::-1]), "not in the order of their names"


def _deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _incomplete(contents: Contents) -> Iterator[Case]:
    handler = orjson.loads(contents[MANIFEST])["model"]["handler"]
    config = yaml.safe_load(contents[CONFIG])
    report = orjson.loads(contents[VERIFICATION])
    artifact = config["handler"]["artifact"]

    def without(*names: str) -> bytes:
        return seal({name: content for name, content in contents.items() if name not in names})

    def with_file(name: str, content: bytes) -> bytes:
        return seal({**contents, name: content})

    def with_section(**changes: Any) -> bytes:
        return with_file(CONFIG, yaml.safe_dump({**config, "handler": {**config["handler"], **changes}}).encode())

    def with_report(**changes: Any) -> bytes:
        return with_file(VERIFICATION, orjson.dumps({**report, **changes}))

    yield "no manifest", without(MANIFEST), f"no usable {MANIFEST}"
    yield "empty manifest", with_file(MANIFEST, b""), f"no usable {MANIFEST}"
    yield "manifest without a model", with_file(MANIFEST, b"{}"), f"no usable {MANIFEST}"
    yield "manifest without a version", with_file(MANIFEST, _manifest(contents, modelVersion=None)), "no modelVersion"
    yield "no yaml", without(CONFIG), f"{CONFIG} is missing"
    yield "empty yaml", with_file(CONFIG, b""), f"{CONFIG} has no section 'handler'"
    yield "broken yaml", with_file(CONFIG, b"handler: ["), f"{CONFIG} is not YAML, or"
    yield (
        "date that is none in the yaml",
        with_file(CONFIG, b"responseTimeout: 2024-13-45"),
        f"{CONFIG} is not YAML, or",
    )
    yield "yaml that swells", with_file(CONFIG, _swelling_yaml()), "an anchor or alias"
    merges = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 13)]
    yield "yaml of merge keys", with_file(CONFIG, "\n".join(["a0: &a0 {k: 1}", *merges]).encode()), "an anchor or alias"
    yield "yaml too large", with_file(CONFIG, b"#" * (1 << 21)), f"{CONFIG} has 2,097,152 bytes"
    yield "manifest too large", with_file(MANIFEST, contents[MANIFEST] + b" " * (1 << 21)), f"{MANIFEST} has 2,097"
    yield "workers in the yaml", with_file(CONFIG, yaml.safe_dump({**config, "minWorkers": 9}).encode()), "'minWorkers'"
    yield "mistyped key", with_section(precison="fp32"), "unknown key 'precison'"
    yield "key of another type", with_section(task=["classification"]), "'task'"
    yield "no handler", without(handler), f"the handler {handler} is missing"
    yield "syntax error", with_file(handler, b"class Handler(\n"), f"{handler} is not Python"
    yield "handler without a class", with_file(handler, b"x = 1\n"), "defines 0 classes"
    yield "handler with two classes", with_file(handler, contents[handler] + b"\nclass Two:\n    pass\n"), "2 classes"
    yield "no artifact", without(artifact, *select_artifact(contents, artifact)), f"the artifact {artifact} is missing"
    yield "no labels", without("labels.json"), "the labels labels.json are missing"
    yield "labels that are none", with_file("labels.json", b'{"0": "cat"}'), "expected a list of strings"
    yield (
        "other labels",
        with_file("labels.json", b'["x", "y", "z"]'),
        "of another configuration, of other labels, or of",
    )
    yield "no verification", without(VERIFICATION), f"{VERIFICATION} is missing"
    yield "failed verification", with_report(passed=False), "the verification failed"
    yield "verification of another artifact", with_report(artifact_sha256="0" * 64), "is of another artifact"
    plain = {**contents, handler: contents[handler] + b"\n"}
    yield "changed file", b"".join(encode_archive(plain)), f"{handler} was changed"
    yield "added file", b"".join(encode_archive({**contents, EVIL: b""})), f"{EVIL} was added"
    left = {name: content for name, content in contents.items() if name != "labels.json"}
    yield "removed file", b"".join(encode_archive(left)), "labels.json is missing, which"
    left = {name: content for name, content in contents.items() if name != DIGESTS}
    yield "no digests", b"".join(encode_archive(left)), f"no {DIGESTS}"


def _swelling_yaml() -> bytes:
    """Return a timeout that is a list of lists of lists: nine to the power of ten of them."""
    lines = ["handler: {}", "responseTimeout:", "- &a0 [x]"]
    lines += [f"- &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 11)]
    return "\n".join(lines).encode()


def _with_pickles(contents: Contents) -> Iterator[Case]:
    """Yield pickles under names that a loader would take them by, and under others."""
    loud = pickle.dumps(Shout())
    artifact = yaml.safe_load(contents[CONFIG])["handler"]["artifact"]
    weights = next(name for name in select_artifact(contents, artifact) if name != artifact)
    yield "pickle by name", seal({**contents, "extra.pkl": b"anything"}), "extra.pkl is a pickle by its name"
    yield "pickle by content", seal({**contents, "extra.dat": loud}), "extra.dat is a pickle that imports"
    yield "old pickle", seal({**contents, "extra.dat": pickle.dumps(Shout(), 0)}), "extra.dat is a pickle that imports"
    yield (
        "pickle behind a number that pickletools does not read",
        seal({**contents, "extra.dat": b"I0x10\n0" + loud}),
        "extra.dat is a pickle that imports",
    )
    yield "pickle of values", seal({**contents, "extra.dat": pickle.dumps([1.0] * 9)}), "extra.dat is a pickle"
    yield "pickle as weights", seal({**contents, weights: loud}, verified=True), f"{weights} is a pickle"
    yield "zip that is damaged", seal({**contents, "extra.pt": _damaged_zip()}), "is a zip that cannot be read"
    yield "torch.save", seal({**contents, "extra.pt": _zip({"a/data.pkl": loud})}), "extra.pt holds the pickle"
    torchscript = {"a/data.pkl": loud, "a/constants.pkl": b"", "a/version": b"4"}
    yield "TorchScript that imports", seal({**contents, "extra.pt": _zip(torchscript)}), "as no TorchScript does"


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def _damaged_zip() -> bytes:
    """Return deflated data that are none."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a", random.Random(0).randbytes(500))
    start = 30 + len("a")
    return buffer.getvalue()[:start] + b"\xff" * 8 + buffer.getvalue()[start + 8 :]


def _manifest(contents: Contents, **changes: Any) -> bytes:
    manifest = orjson.loads(contents[MANIFEST])
    model = {name: value for name, value in {**manifest["model"], **changes}.items() if value is not None}
    return orjson.dumps({**manifest, "model": model})


def seal(contents: Contents, *, verified: bool = False) -> bytes:
    """Seal in our form, with digests that fit; with `verified` the verification's digest of the artifact fits too."""
    files = {name: content for name, content in contents.items() if name != DIGESTS}
    if verified:
        artifact = yaml.safe_load(files[CONFIG])["handler"]["artifact"]
        digests = {name: hashlib.sha256(files[name]).hexdigest() for name in select_artifact(files, artifact)}
        report = {**orjson.loads(files[VERIFICATION]), "artifact_sha256": combine_digests(digests)}
        files[VERIFICATION] = orjson.dumps(report)
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[DIGESTS] = orjson.dumps({"sha256": listed})
    return b"".join(encode_archive(files))
