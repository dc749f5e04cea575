"""Rows C1 and C2 of the reliability page: hostile and damaged archives, as `inspect_archive.py --verify` sees them."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.hostile.archives import make_hostile_archives
from lab.testbed.archives import RECIPE
from lab.testbed.findings import Episode, Finding
from mar_tools.archives.archive import open_archive
from mar_tools.archives.checks import verify_archive
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.gate import verify_export
from vision_serving.errors import ConfigError

ROWS = ("C1", "C2")
MOST_S = 2.0  # of the processor, for each archive
FLIPS = 1000  # anywhere; and one in the header of each entry, and in each byte of the end
END_BYTES = 150


def observe_archive_rows(wanted: Sequence[str], seed: int, announce: Callable[[str], None]) -> Iterator[Finding]:
    """Yield each row as soon as it is finished, of the digits classifier of examples/."""
    if not set(ROWS) & set(wanted):
        return
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        announce("building the archive of section C")
        archive = build_digits(Path(folder))
        if "C1" in wanted:
            announce("C1")
            yield observe_c1(archive, "python lab/run_chaos.py C1")
        if "C2" in wanted:
            announce("C2")
            yield observe_c2(archive, seed, f"python lab/run_chaos.py C2 --seed {seed}")


def build_digits(folder: Path) -> Path:
    recipe = read_recipe(RECIPE, backend="openvino", precision="fp32")
    model = load_checkpoint(recipe)
    export_model(recipe, model, "eager", "fp32", folder)  # what the other is verified by
    export = export_model(recipe, model, "openvino", "fp32", folder)
    verify_export(export)
    return build_archive(export, HANDLERS, folder)


def observe_c1(good: Path, command: str) -> Finding:
    """Observe hostile archives. good: of an OpenVINO artifact; it is accepted, and what is made of it is not."""
    hostile = make_hostile_archives(good.read_bytes())
    seen = Episode()
    if (said := refusal_of(good)) is not None:
        seen.problems.append(f"the good archive is refused: {said}")
    refused, slowest_s, slowest = 0, 0.0, ""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        path = Path(folder) / "x.mar"
        for name, case in hostile.items():
            path.write_bytes(case.data)
            begun = time.process_time()
            said = refusal_of(path) or "accepted"
            slowest_s, slowest = max((slowest_s, slowest), (time.process_time() - begun, name))
            is_right = case.reason in said and said.startswith(str(path))
            seen.require(is_right, f"{name}: {said}")
            refused += is_right
    seen.figures = {"archives": len(hostile), "refused_for_its_reason": refused, "slowest": slowest}
    seen.bound("slowest_s", slowest_s, MOST_S, " s")
    return seen.as_finding(
        "C1",
        f"{len(hostile)} archives that are damaged, incomplete, of an odd form, or hold a pickle",
        f"each is refused for its own reason within {MOST_S:g} s of the processor; the archive that all are made of is "
        "accepted",
        command,
    )


def observe_c2(good: Path, seed: int, command: str) -> Finding:
    """Flip one bit of one byte at a time."""
    data, choose = good.read_bytes(), random.Random(seed)
    headers = [entry.start - 1 - choose.randrange(30) for entry in open_archive(good).entries.values()]
    end = range(len(data) - END_BYTES, len(data))
    places = [*headers, *end, *(choose.randrange(len(data)) for _ in range(FLIPS))]
    accepted = list(accepted_flips(data, places, choose))
    figures = {"archive_mb": round(len(data) / 1e6, 2), "flips": len(places), "accepted": len(accepted)}
    return Episode(figures, problems=[f"byte {place}: accepted" for place in accepted]).as_finding(
        "C2",
        f"one byte changed at {FLIPS:,} places, in each header, and at each of the last {END_BYTES} bytes",
        "all are refused",
        command,
    )


def accepted_flips(data: bytes, places: Sequence[int], choose: random.Random) -> Iterator[int]:
    with tempfile.TemporaryDirectory(prefix="flipped-") as folder:
        path = Path(folder) / "x.mar"
        path.write_bytes(data)
        with path.open("r+b", buffering=0) as file:
            for place in places:
                file.seek(place)
                file.write(bytes([data[place] ^ 1 << choose.randrange(8)]))
                if refusal_of(path) is None:
                    yield place
                file.seek(place)
                file.write(data[place : place + 1])


def refusal_of(path: Path) -> str | None:
    """Return none where it is accepted."""
    try:
        verify_archive(path)
    except ConfigError as error:
        return str(error)
    return None
