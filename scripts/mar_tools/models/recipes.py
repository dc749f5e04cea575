"""One yaml file a model: what to build. Strict: unknown and missing keys are refused with the allowed ones."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from vision_serving.config import ColourConfig, ImageLimits, Precision, PreprocessingConfig, check_scaled_decoding
from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import HOLDS_WEIGHTS, NetworkSource
from vision_serving.options import OPTIONS, WIDEST_OPTIONS, PredictionOptions, Task, check_options
from vision_serving.validation import StrictModel, parse_config, read_yaml

TRUST = "trust_remote_code"  # among `arguments`, where transformers takes it
WEIGHT_FILES = {".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar"}  # .tar: of .pth.tar
NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]*")
Share = Annotated[float, Field(ge=0, le=1)]
# What `verification/reading.py` and `alternatives.py` find odd, and an owner may know to be right.
Oddity = Literal[
    "sigmoid",
    "small_boxes",
    "not_mirrored",
    "max_detections",
    "same_answer",
    "equal_scores",
    "one_class",
    "preprocessing",
]
# Bounds that need to know what is in the images: the keys of which one says so.
TRUTH_OF_BOUND = {
    "max_accuracy_drop": ("labels", "annotations"),
    "min_accuracy": ("labels",),
    "min_map": ("annotations", "labels"),
}


class ModelRecipe(NetworkSource):
    """How to construct the network, and its weights.

    An enum of torchvision, `pretrained` (timm, huggingface), a file, or `random`. The file of a torchscript or onnx
    source holds the weights: there `weights` is not given, and stands for that file. weights_key: under which key of
    the file they are, where several fit.
    """

    weights: str
    weights_key: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _weights_may_be_inside_the_file(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("source") not in HOLDS_WEIGHTS:
            return values
        file = values.get("file")
        if values.get("weights", file) != file:
            raise ValueError(f"source {values['source']!r} does not take 'weights': they are inside its file")
        return {**values, "weights": file}

    @property
    def trusts_remote_code(self) -> bool:
        return bool(self.arguments.get(TRUST))

    def network_source(self) -> NetworkSource:
        return NetworkSource.model_validate(self.model_dump(by_alias=True, exclude={"weights", "weights_key"}))


class VerificationRecipe(StrictModel):
    """Images to compare on, what is in them where that is known, and bounds in place of the defaults of the precision.

    labels: `folders` where each image lies in a folder named after its class, a JSON file with the class of each
    folder, or a file with the labels of each picture. annotations: a COCO file with the boxes.
    count: at most so many images, spread evenly; without it 1000 of
    those that are labelled, else 16. min_accuracy, min_map: of the reference and of each export. allow: what is odd
    about the reference's answers, and right for this model.
    """

    images: Path | None = None
    labels: Literal["folders"] | Path | None = None
    annotations: Path | None = None
    count: Annotated[int, Field(gt=0)] | None = None
    min_top1_agreement: Share | None = None
    min_top5_agreement: Share | None = None
    min_matched_boxes: Share | None = None
    min_matched_labels: Share | None = None
    min_cosine: Share | None = None
    min_iou: Share | None = None
    min_mean_iou: Share | None = None
    min_mean_mask_iou: Share | None = None
    max_keypoint_distance: Share | None = None
    max_score_difference: Share | None = None
    min_snr_db: float | None = None
    max_accuracy_drop: Share | None = None
    min_accuracy: Share | None = None
    min_map: Share | None = None
    allow: tuple[Oddity, ...] = ()

    @model_validator(mode="after")
    def _truth_has_images(self) -> "VerificationRecipe":
        truths = [key for key in ("labels", "annotations") if getattr(self, key) is not None]
        if truths and self.images is None:
            raise ValueError(f"`{truths[0]}` says what is in `images`, which is missing")
        if len(truths) == 2:
            raise ValueError("`labels` belongs to classification and `annotations` to detection; give one of them")
        for bound, needed in TRUTH_OF_BOUND.items():
            if getattr(self, bound) is not None and not set(needed) & set(truths):
                raise ValueError(f"`{bound}` needs `images` with {' or '.join(f'`{key}`' for key in needed)}")
        return self

    def bounds(self) -> dict[str, float]:
        """Return those that the recipe states, by name."""
        return {key: value for key, value in self.model_dump(exclude_none=True).items() if key[:4] in ("min_", "max_")}

    def located_in(self, folder: Path) -> "VerificationRecipe":
        """Return it with its relative paths, which start at `folder`, made absolute."""
        paths = {key: getattr(self, key) for key in ("images", "labels", "annotations")}
        return self.model_copy(
            update={key: (folder / path).absolute() for key, path in paths.items() if isinstance(path, Path)}
        )


# Which of a verification's keys tells the truth of which task.
TRUTHS: dict[Task, str] = {"classification": "labels", "embedding": "labels", "detection": "annotations"}


class CalibrationRecipe(StrictModel):
    """Images that int8 ranges are measured on: like those that will be served, and not those of the verification."""

    images: Path | None = None
    count: Annotated[int, Field(gt=0)] = 128


class QuantizationRecipe(StrictModel):
    """How int8 comes about.

    scheme         static      ranges of the activations measured on the calibration images
                   dynamic     ranges found anew for each batch, of matrix products only (onnxruntime), or for each
                               picture (ExecuTorch)
                   checkpoint  the network was trained with fake quantisation, whose scales are kept
                   auto        dynamic for onnxruntime where most weights are in matrix products, else static
    float_layers   names of layers that stay in float, or `auto`: none, or those that the outputs need
    """

    scheme: Literal["auto", "static", "dynamic", "checkpoint"] = "auto"
    float_layers: Literal["auto"] | tuple[str, ...] = "auto"


class BaselineRecipe(StrictModel):
    """What the network was before it was compressed, on the pictures of the verification.

    name: of its recipe. accuracy: top-1; map: of a detector. steps: what was done to it, in words.
    """

    name: str
    accuracy: Share | None = None
    map: Share | None = None
    pictures: Annotated[int, Field(gt=0)] | None = None
    steps: str | None = None

    @model_validator(mode="after")
    def _says_how_good_it_was(self) -> "BaselineRecipe":
        if (self.accuracy is None) == (self.map is None):
            raise ValueError("it needs either `accuracy` or `map`: how good the network was before")
        return self

    @property
    def floor(self) -> str:
        """Return the key of the verification that says how good the network must still be."""
        return "min_accuracy" if self.map is None else "min_map"


def check_baseline(baseline: BaselineRecipe | None, verification: VerificationRecipe) -> None:
    """Raises ValueError where nothing but the compressed network itself would say what is good enough."""
    if baseline is not None and getattr(verification, baseline.floor) is None:
        raise ValueError(
            f"`baseline` needs `{baseline.floor}` under `verification`: exports are compared with the compressed "
            "network, which cannot say what compressing has cost"
        )


def check_truth(task: Task, verification: VerificationRecipe) -> None:
    """Raises ValueError for labels of a detector or boxes of a classifier."""
    for other, key in TRUTHS.items():
        if key != TRUTHS[task] and getattr(verification, key) is not None:
            raise ValueError(f"verification: `{key}` belongs to {other}; {task} takes `{TRUTHS[task]}`")


class Recipe(StrictModel):
    """What to build. Relative paths in it are relative to its own `folder`.

    candidate_timeout_s: after which the export and verification of one backend and precision is given up.
    """

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    version: Annotated[str, Field(pattern=f"^{NAME.pattern}$")] = "1.0"
    task: Task
    model: ModelRecipe
    labels: str = "auto"
    preprocessing: Literal["auto"] | PreprocessingConfig = "auto"
    backend: str = "auto"
    precision: Literal["auto", Precision] = "auto"
    options: dict[str, Any] = Field(default={})
    limits: ImageLimits = ImageLimits()
    colours: ColourConfig = ColourConfig()
    scaled_decoding: bool = False
    response_timeout_s: Annotated[int, Field(gt=0)] = 60
    startup_timeout_s: Annotated[int, Field(gt=0)] = 300
    candidate_timeout_s: Annotated[float, Field(gt=0)] = 600
    calibration: CalibrationRecipe = CalibrationRecipe()
    quantization: QuantizationRecipe = QuantizationRecipe()
    verification: VerificationRecipe = VerificationRecipe()
    baseline: BaselineRecipe | None = None
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> "Recipe":
        check_options(self._widest_options, self.options)
        check_scaled_decoding(self.task, self.scaled_decoding)
        check_truth(self.task, self.verification)
        check_baseline(self.baseline, self.verification)
        sides = [side.images and os.path.normpath(side.images) for side in (self.calibration, self.verification)]
        if sides[0] is not None and sides[0] == sides[1]:
            raise ValueError("`calibration` and `verification` name the same images; int8 fits those it was made with")
        try:
            self.model.output.form_for(self.task)
        except ConfigError as error:
            raise ValueError(f"model.output: {error}") from error
        return self

    @property
    def _widest_options(self) -> type[PredictionOptions]:
        """Return what requests may choose as far as the recipe tells: a configuration of transformers may say more."""
        is_plain = self.model.source != "huggingface" and self.model.output.activation != "sigmoid"
        return (OPTIONS if self.task == "classification" and is_plain else WIDEST_OPTIONS)[self.task]

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def weights_file(self) -> Path | None:
        """Return the file with the weights; None where they have a name, are random, or lie in the model's own file."""
        if self.model.holds_weights or not is_weights_file(self.model.weights, self.folder):
            return None
        return self.path(self.model.weights)

    def located_in(self, folder: Path) -> "Recipe":
        """Return a copy whose relative paths start at `folder`."""
        located = self.model_copy()
        located._folder = folder
        return located

    def network_source(self) -> NetworkSource:
        """Return the source of the network, whose output reads its file from the recipe's folder."""
        return self.model.network_source().located_in(self.folder)

    def path(self, relative: str | Path) -> Path:
        """Return a path of the recipe, from where we stand."""
        return self.folder / relative


def is_weights_file(weights: str, folder: Path) -> bool:
    """Return whether it names a file: by its suffix, or because one lies there."""
    return Path(weights).suffix in WEIGHT_FILES or (folder / weights).is_file()


def read_recipe(path: Path, trust_remote_code: bool = False, **overrides: str | None) -> Recipe:
    """Raises ConfigError, also for remote code that nobody has said to trust.

    overrides: `weights`, `backend`, `precision` from the command line, None where not given.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines such as name, task and model")
    weights = overrides.pop("weights", None)
    if weights is not None and isinstance(values.get("model"), dict):
        is_file = is_weights_file(weights, Path())
        values["model"]["weights"] = str(Path(weights).absolute()) if is_file else weights
    values.update({key: value for key, value in overrides.items() if value is not None})
    if isinstance(values.get("version"), (int, float)):
        values["version"] = str(values["version"])  # version: 1.0 without quotes is a number in YAML
    recipe = parse_config(Recipe, values, str(path)).located_in(path.parent)
    if recipe.model.trusts_remote_code and not trust_remote_code:
        raise ConfigError(
            f"{path}: `{TRUST}` runs Python code that comes with the model, from whoever may write there; "
            "read that code, and give --trust-remote-code"
        )
    return recipe
