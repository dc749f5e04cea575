"""Serve as SageMaker, Vertex AI and Azure ML ask a container to: one port, plain HTTP, no key.

    python scripts/serve_cloud.py serve

It runs TorchServe and the front before it, and stays. SIGTERM lets both answer what was asked. The environment that the
platform sets says the port (AIP_HTTP_PORT, SAGEMAKER_BIND_TO_PORT; 8080 without), the routes (AIP_HEALTH_ROUTE and
AIP_PREDICT_ROUTE, beside /ping, /invocations and /score) and where archives are (AZUREML_MODEL_DIR; else
/opt/ml/model, else the model store). VISION_MODEL chooses the model that answers, where there are several.

Nothing but the platform may reach the port: docs/operate/clouds.md.
"""

import os
import sys
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.front.clouds import own_route, read_contract, write_places
from mar_tools.front.one_container import run_together
from mar_tools.locking import locked
from mar_tools.serving.foreground import own_log
from mar_tools.serving.state_option import add_state_option
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties, read_text, state_folder


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("action", nargs="?", choices=("serve",), default="serve", help="what SageMaker says")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="settings but for addresses"
    )
    add_state_option(parser)
    config: Path = parser.parse_args().config
    store = config.parent / read_properties(read_text(config)).get("model_store", "model_store")
    contract = read_contract(os.environ, store)
    say = own_log(config, "serve_cloud")
    say(f"port {contract.port}: {', '.join((*contract.predict_routes, own_route(contract.model)))}")
    say(f"health: {', '.join(contract.health_routes)}")
    state = state_folder(config)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    advice = "end that one by SIGTERM, or give another folder with --state"
    with locked(state / "cloud.lock", ConfigError(f"{state}: another serve_cloud.py serves there; {advice}")):
        sys.exit(run_together(write_places(contract, config, state), say))


if __name__ == "__main__":
    run(main)
