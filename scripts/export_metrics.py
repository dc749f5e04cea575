"""Show a server's metrics to Prometheus, at http://127.0.0.1:PORT/metrics.

    python scripts/export_metrics.py --folder /tmp/vision-serving-x/metrics --port 8083

`serve_models.py start` runs this command and `stop` ends it, where config.properties has `metrics_port`. Nobody else
needs to. docs/operate/monitoring.md has what is shown.
"""

import argparse
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, positive_count, run
from mar_tools.serving.state_option import add_state_option


def main() -> None:
    from mar_tools.monitoring.exporter import serve
    from mar_tools.serving.metrics_exporter import metrics_port
    from vision_serving.errors import ConfigError
    from vision_serving.worker.server_settings import read_properties, read_text

    given = parse_arguments()
    port = given.port or metrics_port(read_properties(read_text(given.config)))
    if not port:
        raise ConfigError(f"{given.config.name} has no `metrics_port`; write one there, or give --port")
    serve(given.config, given.folder, port)


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    add_state_option(parser)
    parser.add_argument("--folder", type=Path, required=True, help="where its workers write; with it, the command ends")
    parser.add_argument("--port", type=positive_count, help="instead of `metrics_port` of the settings")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
