"""Open the playground: a page to try the served models with pictures of yours, in the browser of this machine.

    python scripts/open_playground.py
    python scripts/open_playground.py --port 8090 --no-browser

The page asks the TorchServe of config.properties, and this command adds the token. It listens on this machine alone,
until Ctrl+C. For other machines, the front shows the same page: docs/operate/front.md, `playground: true`.
"""

import webbrowser
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.playground.page_server import PageServer


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    arguments = parser.parse_args()
    with PageServer(arguments.config, arguments.port) as server:
        print(f"the playground is at {server.url} until Ctrl+C", flush=True)
        if not arguments.no_browser:
            webbrowser.open(server.url)
        server.serve_forever()


if __name__ == "__main__":
    run(main)
