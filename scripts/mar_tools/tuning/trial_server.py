"""A TorchServe of its own that serves one archive with the settings of a trial; gone at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mar_tools.load_testing.served import find_served_models
from mar_tools.load_testing.targets import Target
from mar_tools.serving.config_file import with_model, with_values
from mar_tools.serving.temporary_server import temporary_server
from mar_tools.tuning.deployment import TunedModel
from mar_tools.tuning.space import Settings

WAITING_REQUESTS = 1000  # an open loop shows by its latencies, not by refusals, that a server does not keep up


@contextmanager
def serve_trial(candidate: TunedModel, settings: Settings, log_settings: Path | None) -> Iterator[Target]:
    """Serve a trial. log_settings: a log4j2.xml. Raises ServerError where the model does not come up."""
    with temporary_server([candidate.archive], trial_properties(candidate, settings), log_settings) as server:
        yield find_served_models(server, [candidate.name])[0].target


def trial_properties(candidate: TunedModel, settings: Settings) -> str:
    """Return those of the candidate, for this archive alone, and with these settings."""
    own = {"load_models": candidate.archive.name, "job_queue_size": str(WAITING_REQUESTS), "models": "{}"}
    model = {"defaultVersion": True, "marName": candidate.archive.name, **settings.as_properties()}
    return with_model(with_values(candidate.properties, own), candidate.name, candidate.version, model)
