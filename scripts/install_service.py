"""Write the units of systemd for this checkout and this Python: a server, and the front before it.

    sudo .venv/bin/python scripts/install_service.py
    sudo systemctl daemon-reload
    sudo systemctl enable --now vision-server

The services run as a user that systemd makes, who writes into /var/lib/vision-serving alone. That user has to be able
to read the checkout, which the command checks. docs/operate/systemd.md has the rest.
"""

import os
import sys
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.serving.service_units import render_units
from vision_serving.errors import ConfigError


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("/etc/systemd/system"), help="for the units (default: /etc/systemd/system)"
    )
    given = parser.parse_args()
    if not given.folder.is_dir():
        raise ConfigError(f"{given.folder}: no such folder; expected that of systemd's units, or another by --folder")
    if not os.access(given.folder, os.W_OK):
        raise ConfigError(f"cannot write in {given.folder}; run this by sudo, or give another --folder")
    for name, text in render_units(Path(sys.executable), given.config).items():
        path = given.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        print(path)
    print("then: systemctl daemon-reload, and systemctl enable --now vision-server")


if __name__ == "__main__":
    run(main)
