"""Write the pages of docs/evidence from lab/results.

    python lab/render_pages.py                           # all of them
    python lab/render_pages.py reliability fidelity      # some
    python lab/render_pages.py --check                   # write nothing; exit status 1 where a page is stale

Prose stands in the templates, lab/pages/*.md.j2.
"""

import os
import runpy
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import new_parser, run
from vision_serving.errors import ConfigError


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument(
        "pages",
        nargs="*",
        metavar="PAGE",
        help="performance, compatibility, checkpoints, fidelity, published, reliability, billion, techniques (all)",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file differs")
    arguments = parser.parse_args()
    from lab.pages.rendering import PAGES, page_path, render_page  # after the options: it imports Jinja

    unknown = sorted(set(arguments.pages) - set(PAGES))
    if unknown:
        parser.error(f"no page {unknown[0]!r}; expected some of {', '.join(PAGES)}")
    stale = []
    for name in arguments.pages or PAGES:
        path, text = page_path(name), render_page(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(os.path.relpath(path))
            if not arguments.check:
                path.write_text(text, encoding="utf-8")
    if arguments.check and stale:
        raise ConfigError(f"not what the results give: {', '.join(stale)}; run `python lab/render_pages.py`")
    print("\n".join(stale) or "all pages are what the results give")


if __name__ == "__main__":
    run(main)
