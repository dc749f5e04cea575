"""The models that are compared, library by library."""

from importlib import import_module

from lab.fidelity.compared_models import Library, ModelCase
from vision_serving.errors import ConfigError, how_to_install

LIBRARIES: tuple[Library, ...] = ("torchvision", "timm", "huggingface")


def list_cases(libraries: tuple[Library, ...] = LIBRARIES) -> list[ModelCase]:
    """Raises ConfigError for a library that is missing."""
    cases: list[ModelCase] = []
    for library in libraries:
        try:
            cases += import_module(f"lab.fidelity.{library}_cases").CASES
        except ModuleNotFoundError as error:
            raise ConfigError(f"comparing models of {library!r} needs {how_to_install(error)}") from error
    return cases
