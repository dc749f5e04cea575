"""One yaml file a model: what to build. Strict: unknown and missing keys are refused with the allowed ones."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from vision_serving.config import (
    ImageLimits,
    Precision,
    PreprocessingConfig,
    StrictModel,
    Task,
    check_options,
    parse_config,
    read_yaml,
)
from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import HOLDS_WEIGHTS, NetworkSource

WEIGHT_FILES = {".safetensors", ".pth", ".pt"}
Share = Annotated[float, Field(ge=0, le=1)]


class ModelRecipe(NetworkSource):
    """How to construct the network, and its weights.

    An enum of torchvision, `pretrained` (timm, huggingface), a file, or `random`. The file of a torchscript or onnx
    source holds the weights: there `weights` is not given, and stands for that file.
    """

    weights: str

    @model_validator(mode="before")
    @classmethod
    def _weights_may_be_inside_the_file(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("source") not in HOLDS_WEIGHTS:
            return values
        file = values.get("file")
        if values.get("weights", file) != file:
            raise ValueError(f"source {values['source']!r} does not take 'weights': they are inside its file")
        return {**values, "weights": file}

    def network_source(self) -> NetworkSource:
        return NetworkSource.model_validate(self.model_dump(by_alias=True, exclude={"weights"}))


class VerificationRecipe(StrictModel):
    """Images to compare on, and bounds that replace the defaults of `verification.py`."""

    images: Path | None = None
    count: Annotated[int, Field(gt=0)] = 16
    min_top1_agreement: Share | None = None
    min_matched_boxes: Share | None = None
    min_iou: Share | None = None
    max_score_difference: Share | None = None
    min_snr_db: float | None = None


class Recipe(StrictModel):
    """What to build. Relative paths in it are relative to its own `folder`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "1.0"
    task: Task
    model: ModelRecipe
    labels: str = "auto"
    preprocessing: Literal["auto"] | PreprocessingConfig = "auto"
    backend: str = "auto"
    precision: Literal["auto", Precision] = "auto"
    options: dict[str, Any] = Field(default={})
    limits: ImageLimits = ImageLimits()
    response_timeout_s: Annotated[int, Field(gt=0)] = 60
    startup_timeout_s: Annotated[int, Field(gt=0)] = 300
    verification: VerificationRecipe = VerificationRecipe()
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _options_are_valid(self) -> "Recipe":
        check_options(self.task, self.options)
        return self

    @model_validator(mode="after")
    def _output_is_of_the_task(self) -> "Recipe":
        try:
            self.model.output.name_for(self.task)
        except ConfigError as error:
            raise ValueError(f"model.output: {error}") from error
        return self

    @property
    def folder(self) -> Path:
        return self._folder

    def path(self, relative: str | Path) -> Path:
        """A path of the recipe, from where we stand."""
        return self.folder / relative


def read_recipe(path: Path, **overrides: str | None) -> Recipe:
    """Raises ConfigError. overrides: `weights`, `backend`, `precision` from the command line, None where not given."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines such as name, task and model")
    weights = overrides.pop("weights", None)
    if weights is not None and isinstance(values.get("model"), dict):
        is_file = Path(weights).suffix in WEIGHT_FILES
        values["model"]["weights"] = str(Path(weights).absolute()) if is_file else weights
    values.update({key: value for key, value in overrides.items() if value is not None})
    if isinstance(values.get("version"), (int, float)):
        values["version"] = str(values["version"])  # version: 1.0 without quotes is a number in YAML
    recipe = parse_config(Recipe, values, str(path))
    recipe._folder = path.parent
    return recipe
