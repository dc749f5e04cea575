"""A run of the zoo sweep and a row of it, for the tests of the sweep and of its page."""

from lab.sweeping.coverage import CoverageRow, SweepRun
from vision_serving.config import Precision

RUN = SweepRun(id=0, date="2030-01-01", cpu="a CPU", cores=2, timed=False, versions={"torch": "1.0"})


def new_row(backend: str = "openvino", precision: Precision = "fp32", **changes: object) -> CoverageRow:
    """Return a verified row, but for `changes`."""
    values = {
        "group": "classification",
        "model": "squeezenet1_1",
        "backend": backend,
        "precision": precision,
        "status": "verified",
        "snr_db": 62.4,
        "ms": 14.25,
        "seconds": 1.0,
        "peak_gib": 0.5,
        "run": 0,
    }
    return CoverageRow.model_validate({**values, **changes})
