"""Show what a .mar says of itself, without a server: its model card.

    python scripts/inspect_archive.py model_store/digits.mar
    python scripts/inspect_archive.py model_store/digits.mar --json

A running model shows the same, and its device: python scripts/manage_models.py describe digits --card
"""

from pathlib import Path

import orjson
from rich.console import Console

from mar_tools.command_line import MODEL_STORE, new_parser, run
from mar_tools.model_cards import card_table, read_card


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file, or its name in model_store")
    parser.add_argument("--json", action="store_true", help="print the whole card as JSON")
    arguments = parser.parse_args()
    named = MODEL_STORE / arguments.archive
    card = read_card(arguments.archive if arguments.archive.exists() or not named.exists() else named)
    if arguments.json:
        print(orjson.dumps(card, option=orjson.OPT_INDENT_2).decode())
    else:
        Console().print(card_table(card))


if __name__ == "__main__":
    run(main)
