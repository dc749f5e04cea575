"""Compare what a served model is sent and answers with what its archive was verified with.

    python scripts/compare_traffic.py digits
    python scripts/compare_traffic.py digits --version 2.0 --since 1d
    python scripts/compare_traffic.py digits --output drift   # also a picture, drift/digits-1.0.png

It reads the predictions that workers keep where `sample_share` of config.properties asks for it, and needs no running
server. A shift of scores says that the model is less sure, or surer, than it was. docs/operate/drift.md has the rest.
"""

import argparse
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, print_json, run
from mar_tools.terminal import print_tables
from vision_serving.errors import ConfigError

SECONDS = {"m": 60, "h": 3600, "d": 86_400}
SHOWN_WHOLE = ("scores", "classes")  # the others where they are shifted


def main() -> None:
    given = parse_arguments()
    from mar_tools.drift.comparing import SHIFT, compare  # after the options: these need packages
    from mar_tools.drift.reference import find_archive, read_archive_reference
    from mar_tools.drift.samples import advise_sampling, find_version, read_samples
    from mar_tools.drift.tables import bins_table, describe_samples, overview_table, to_document
    from vision_serving.worker.sample_settings import model_folder, samples_folder

    folder = model_folder(samples_folder(given.config), given.model)
    version = given.version or find_version(folder)
    if version is None:
        raise ConfigError(f"{folder}: no samples of {given.model}; {advise_sampling(given.config, given.model)}")
    reference = read_archive_reference(given.archive or find_archive(given.config, given.model, version))
    samples = read_samples(folder, version, reference.all_classes, given.since)
    compared = compare(reference, samples)
    drawn: list[Path] = []
    if given.output:
        from mar_tools.drift.histograms import draw_comparison

        title = f"{given.model} {version}: {samples.images} sampled images beside {reference.source}"
        drawn = draw_comparison(title, compared, reference, given.output, f"{folder.name}-{version}")
    if given.json:
        document = to_document(given.model, version, reference, samples, compared)
        print_json({**document, "files": list(map(str, drawn))}, indent=True)
        return
    shown = [each for each in compared if each.part in SHOWN_WHOLE or each.verdict == SHIFT]
    print_tables(
        describe_samples(given.model, version, reference, samples),
        overview_table(compared),
        *(bins_table(each, reference) for each in shown),
        *map(str, drawn),
    )


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="as it is served")
    parser.add_argument("--version", metavar="V", help="of the model (the one that was sampled last)")
    parser.add_argument("--since", type=time_ago, metavar="AGE", help="no older samples: 30m, 12h, 7d (all)")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="that is served (the one in the model store)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="also draw it there, as PNG and SVG")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def time_ago(text: str) -> datetime:
    """Read an age as the time since when."""
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected minutes, hours or days as 30m, 12h or 7d, got {text!r}")
    return datetime.now(timezone.utc) - timedelta(seconds=int(found[1]) * SECONDS[found[2]])


if __name__ == "__main__":
    run(main)
