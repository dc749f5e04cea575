"""Which pictures train, which choose the best epoch, and which are only looked at when all is done.

The split is kept in a file: a later run, and a network that is made of this one, see the same pictures as new.
"""

import csv
import io
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mar_tools.training.folders import PARTS, Part, Picture
from mar_tools.training.whole_files import write_whole
from vision_serving.errors import ConfigError

SHARES: Mapping[Part, float] = {"validation": 0.15, "test": 0.15}  # of what the folder itself does not divide
COLUMNS = ("sha256", "part", "file")
Of = TypeVar("Of", bound=Picture)
Split = Mapping[Part, Sequence[Of]]


class Divisible(Protocol[Of]):
    """Pictures, the groups of which each part gets its share, and what a part must have."""

    @property
    def pictures(self) -> Sequence[Of]: ...

    def groups(self) -> Sequence[set[str]]: ...

    def check_part(self, part: Part, pictures: Sequence[Of]) -> None: ...


def split_pictures(found: Divisible[Of], kept: Path, seed: int) -> Split[Of]:
    """Return the pictures of each part: as the folder itself divides them, as the file `kept` says, or dealt by group.

    Copies of one picture are in one part. Raises ConfigError where a part lacks what it must have.
    """
    parts = read_split(kept)
    # The folder's own word comes last: what it holds back from training must not train, copies of it included.
    parts |= {each.digest: each.part for each in found.pictures if each.part not in (None, "train")}
    given = {picture.part for picture in found.pictures}
    dealer = random.Random(seed)
    for digests in found.groups():
        _deal(digests, parts, {part: share for part, share in SHARES.items() if part not in given}, dealer)
    split = {part: [each for each in found.pictures if parts[each.digest] == part] for part in PARTS}
    for part, pictures in split.items():
        found.check_part(part, pictures)
    return split


def _deal(digests: set[str], parts: dict[str, Part], shares: Mapping[Part, float], dealer: random.Random) -> None:
    """Put the pictures of a group that have no part yet into one. What the folder gives as `train` is divided too."""
    held = Counter(parts[digest] for digest in digests if digest in parts)
    total = len(digests) - sum(held[part] for part in PARTS if part != "train" and part not in shares)
    new = sorted(digest for digest in digests if digest not in parts)
    dealer.shuffle(new)
    for part, share in shares.items():
        count = max(0, max(1, round(share * total)) - held[part])
        parts.update(dict.fromkeys(new[:count], part))
        del new[:count]
    parts.update(dict.fromkeys(new, "train"))


def read_split(kept: Path) -> dict[str, Part]:
    """Return digest: part, of a file that `write_split` wrote; nothing where there is none. Raises ConfigError."""
    if not kept.exists():
        return {}
    with kept.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {row["sha256"]: PARTS[PARTS.index(row["part"])] for row in rows}  # type: ignore[arg-type]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{kept}: expected the columns {', '.join(COLUMNS)}; remove it to divide anew") from error


def write_split(split: Split[Any], folder: Path, kept: Path) -> None:
    """Write which picture of `folder` is in which part."""
    write_whole(kept, describe_split(split, folder))


def describe_split(split: Split[Any], folder: Path) -> bytes:
    """Return the file that says which picture of `folder` is in which part."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for part, pictures in split.items():
        writer.writerows((each.digest, part, each.path.relative_to(folder).as_posix()) for each in pictures)
    return text.getvalue().encode(errors="surrogateescape")


def check_same_split(split: Split[Any], folder: Path, kept: Path) -> None:
    """Raises ConfigError where a training that goes on would see other pictures than it began with."""
    before, now = (set(rows.splitlines()) for rows in (kept.read_bytes(), describe_split(split, folder)))
    if before != now:
        raise ConfigError(
            f"--resume: the pictures in {folder} have changed since the training began: {len(now - before)} are new or "
            f"elsewhere, {len(before - now)} are gone; bring them back, or begin anew with --force"
        )
