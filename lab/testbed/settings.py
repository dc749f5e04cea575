"""The settings that a model is usually compared under: those that nobody chose, the rule's, and the benchmark's."""

from dataclasses import replace

from mar_tools.machine import memory_bytes
from mar_tools.tuning.deployment import TunedModel, current_settings
from mar_tools.tuning.rule import settings_by_rule
from mar_tools.tuning.space import Settings
from vision_serving.cores import usable_cores

UNNAMED_DELAY_MS = 100  # TorchServe's own, which counts for nothing where a batch is one request


def usual_settings(candidate: TunedModel) -> dict[str, Settings]:
    """Return them by name. candidate: with the properties that name it for the benchmark."""
    cores = usable_cores()
    benchmark = current_settings(candidate)
    return {
        "by rule": settings_by_rule(cores, memory_bytes(), candidate.gpus),
        "not named": Settings(1, cores, 1, UNNAMED_DELAY_MS),
        "not named, 2 workers": Settings(2, max(1, cores // 2), 1, UNNAMED_DELAY_MS),
        "benchmark": benchmark,
        "one worker more": replace(benchmark, workers=cores + 1, threads=1),
    }
