"""Show the pictures of a result that a person should look at, and list them to be labelled.

    python scripts/review_predictions.py rows/
    python scripts/review_predictions.py found.jsonl --count 100 --list to_label.csv
    python scripts/review_predictions.py int8/ fp32/ --output differences.html   # two models, or two precisions

A RESULT is what predict_images.py --output has written: a folder of --format parquet, or a file of --format json-lines.
The page has the least sure answers drawn on their pictures, the answers that differ from a second result's, and the
errors by kind. It is one file, without scripts, and needs no network. No file is replaced.
"""

import argparse
from pathlib import Path

from mar_tools.command_line import new_parser, positive_count, print_json, run
from mar_tools.images import show_line
from vision_serving.errors import ConfigError


def main() -> None:
    given = parse_arguments()
    from mar_tools.reviewing.choosing import review  # after the options: these need packages
    from mar_tools.reviewing.sheet import write_list, write_sheet

    for file in filter(None, (given.output, given.list)):
        if file.exists():
            raise ConfigError(f"{file}: this file is there, and would be replaced; give another name")
    found = review(given.result, given.other, given.count)
    names = [result.name for result in (given.result, given.other) if result is not None]
    write_sheet(found, names, given.output)
    listed = write_list(found, given.list) if given.list else None
    failed = sum(found.errors.values())
    if given.json:
        print_json(
            {"rows": found.rows, "failed": failed, "differing": found.differing_count, "page": str(given.output)}
        )
        return
    differing = f", {found.differing_count} answered differently" if given.other else ""
    print(f"{found.rows} pictures, {failed} without an answer{differing}")
    if listed is not None:
        print(f"{listed} to label: {show_line(given.list)}")
    print(show_line(given.output))


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("result", type=Path, metavar="RESULT", help="a folder of Parquet, or JSON lines")
    parser.add_argument("other", type=Path, nargs="?", metavar="OTHER", help="a second result of the same pictures")
    parser.add_argument("--count", type=positive_count, default=24, metavar="N", help="of pictures of each kind (24)")
    parser.add_argument(
        "--output", type=Path, default=Path("review.html"), metavar="FILE", help="the page (review.html)"
    )
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="also write the pictures as CSV: path, why, doubt, what"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
