"""What an archive's `model-config.yaml` may say under `handler:`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from vision_serving.errors import ConfigError
from vision_serving.options import Activation, Instances, PredictionOptions, Task, check_options, find_options
from vision_serving.validation import StrictModel, parse_config, read_yaml

Precision = Literal["fp32", "bf16", "fp16", "int8"]
DeviceType = Literal["cpu", "cuda"]

PositiveHW = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
RGB = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
PositiveRGB = tuple[Positive, Positive, Positive]
Gray = tuple[float]
PositiveGray = tuple[Positive]
Level = Annotated[int, Field(ge=0, le=255)]
Interpolation = Literal["bilinear", "bicubic", "nearest", "nearest-exact", "lanczos", "box", "hamming"]
ImageFormat = Literal["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF"]


class ResizeConfig(StrictModel):
    """How a picture of any size becomes model pixels.

    shortest_edge   the shorter side becomes `size`, the aspect ratio stays (torchvision's `Resize(size)`); with
                    `max_size` the longer side stays within it (`Resize(size, max_size=...)` of DETR), and with
                    `multiple_of` both sides are cut down to multiples of it
    exact           both sides become `size` = [height, width]
    fixed_height    the height becomes that of `size` = [height, width], the width what keeps the aspect ratio, but at
                    most that of `size`; what is left to the right is filled with `pad_value` (text lines)
    cover           scaled until both sides reach `size` = [height, width], to be cropped
    letterbox       scaled to fit into `size` = [height, width], the rest filled with `pad_value`
    bounded_edges   the shorter side becomes `size` unless the longer would exceed `max_size`
                    (torchvision's detection transform)

    pad_size    pictures of a bounded size are filled up to [height, width] with `pad_value`
    pad_place   where a picture lies that is filled up: in the `centre`, or at the `top_left`
    """

    mode: Literal["shortest_edge", "exact", "cover", "letterbox", "fixed_height", "bounded_edges"]
    size: Annotated[int, Field(gt=0)] | PositiveHW
    max_size: Annotated[int, Field(gt=0)] | None = None
    multiple_of: Annotated[int, Field(gt=1)] | None = None
    pad_size: PositiveHW | None = None
    pad_place: Literal["centre", "top_left"] = "centre"
    pad_value: Level | tuple[Level, Level, Level] = 114

    @property
    def canvas(self) -> PositiveHW | None:
        """Return what every picture is filled up to; None where none is."""
        if self.mode not in ("letterbox", "fixed_height"):
            return self.pad_size
        assert isinstance(self.size, tuple)
        return self.size

    @model_validator(mode="after")
    def _size_fits_mode(self) -> "ResizeConfig":
        one_number = self.mode in ("shortest_edge", "bounded_edges")
        if one_number != isinstance(self.size, int):
            expected = "one number" if one_number else "[height, width]"
            raise ValueError(f"mode {self.mode!r} needs `size` as {expected}, got {self.size!r}")
        if self.mode == "bounded_edges" and self.max_size is None:
            raise ValueError("mode 'bounded_edges' needs `max_size`")
        if self.max_size is not None and not one_number:
            raise ValueError("`max_size` belongs to the modes 'shortest_edge' and 'bounded_edges'")
        if self.multiple_of is not None and self.mode != "shortest_edge":
            raise ValueError("`multiple_of` belongs to mode 'shortest_edge'")
        return self

    @model_validator(mode="after")
    def _padding_fits(self) -> "ResizeConfig":
        if self.pad_size is not None and self.max_size is None:
            raise ValueError("`pad_size` needs `max_size`: pictures without it may be larger than what is filled up")
        if self.pad_size is not None and self.max_size is not None and min(self.pad_size) < self.max_size:
            raise ValueError(f"`pad_size` {self.pad_size} is smaller than `max_size` {self.max_size}")
        if self.pad_place == "top_left" and self.canvas is None:
            raise ValueError("`pad_place` belongs to mode 'letterbox' and to `pad_size`")
        return self


class PreprocessingConfig(StrictModel):
    """Pixels as the training library prepares them; the channels, `mean` and `std` are made inside the graph.

    crop_offset   where half a pixel of a centre crop goes: `round` (torchvision, timm) or `floor` (transformers)
    pass_order    which side of a picture is resized first, which decides what its overshooting filter cuts off:
                  `horizontal_first` (torch, and Pillow up to 12), or as `pillow13` does: the height, where it loses
                  more than twice the pixels that the width loses
    color_order   of the network's channels, which `mean` and `std` follow
    channels      1: the network takes gray, with one number each as `mean` and `std`
    gray          of `channels: 1`: as Pillow's mode L (`pillow`), or torchvision's rgb_to_grayscale of floats
    """

    resize: ResizeConfig
    crop: PositiveHW | None = None
    crop_offset: Literal["round", "floor"] = "round"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    pass_order: Literal["horizontal_first", "pillow13"] = "horizontal_first"
    color_order: Literal["rgb", "bgr"] = "rgb"
    channels: Literal[1, 3] = 3
    gray: Literal["pillow", "torchvision"] = "pillow"
    mean: RGB | Gray = (0.485, 0.456, 0.406)
    std: PositiveRGB | PositiveGray = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _channels_fit(self) -> "PreprocessingConfig":
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != self.channels:
                raise ValueError(f"`channels: {self.channels}` needs `{name}` of {self.channels}, got {list(values)}")
        if self.channels == 1 and self.color_order == "bgr":
            raise ValueError("`color_order` is of three channels, and `channels` is 1")
        return self

    @property
    def fixed_hw(self) -> PositiveHW | None:
        """Return the model size of all pictures; None where it depends on the picture."""
        if self.crop is not None or self.resize.canvas is not None:
            return self.crop or self.resize.canvas
        return self.resize.size if self.resize.mode == "exact" and isinstance(self.resize.size, tuple) else None

    @model_validator(mode="after")
    def _size_is_bounded(self) -> "PreprocessingConfig":
        if self.crop is not None:
            if self.resize.pad_size is not None or self.resize.pad_place == "top_left":
                raise ValueError("`pad_size` and `pad_place` go without `crop`, which is a size of its own")
            return self
        if self.resize.mode == "cover" or (self.resize.mode == "shortest_edge" and self.resize.max_size is None):
            raise ValueError(
                f"resize mode {self.resize.mode!r} needs `crop`: without it a narrow picture has no bounded size"
            )
        return self


class ImageLimits(StrictModel):
    """What one request may cost.

    max_pixels_per_byte     of an image of over 10 million pixels: more is a forged header or an all but empty picture
    max_request_pixels      of its images together, where it has several, by their headers
    max_tiles               of all its images together, beside the images themselves
    max_explanation_images  of a request for explanations, beside max_images
    max_explanation_s       seconds for all explanations of a request together; 0: none
    max_explanation_share   of a worker's time, which predictions wait for; 1: all of it
    formats                 HEIF needs requirements/heif.txt, the others are Pillow's own
    """

    max_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    max_pixels_per_byte: Annotated[int, Field(gt=0)] = 2000
    max_images: Annotated[int, Field(gt=0)] = 64
    max_request_pixels: Annotated[int, Field(gt=0)] = 200_000_000
    max_tiles: Annotated[int, Field(gt=0)] = 64
    max_explanation_images: Annotated[int, Field(gt=0)] = 4
    max_explanation_s: Annotated[float, Field(ge=0)] = 20.0
    max_explanation_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    formats: tuple[ImageFormat, ...] = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")


class ColourConfig(StrictModel):
    """How the colours of a picture become RGB.

    background     what is seen through transparent pixels; `none`: they show the colour that is stored beneath them
    icc_profiles   `convert`: colours are those that the picture's own profile says, in sRGB; `ignore`: as stored
    """

    background: Literal["none"] | tuple[Level, Level, Level] = (255, 255, 255)
    icc_profiles: Literal["convert", "ignore"] = "convert"


def check_scaled_decoding(task: Task, wanted: bool) -> None:
    """Raises ValueError where it is wanted of a detector."""
    if wanted and task == "detection":
        raise ValueError("`scaled_decoding` is not for detection; a detector looks for small things in whole pictures")


def _require_inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"expected a file inside the archive, got {path[:80]!r}")
    return path


InnerPath = Annotated[str, AfterValidator(_require_inside)]


class HandlerConfig(StrictModel):
    """The `handler:` section of an archive.

    instances      what a detector gives of an object beyond its box
    activation     what makes scores of a classifier's logits; `softmax` where nothing is said
    device_type    the only kind of device that the artifact runs on; any that its backend knows where there is none
    cpu_features   what its verified answers depend on, as `cores.cpu_features` names it
    fixed_batch    how many images the artifact takes at a time, where it does not take any number
    scaled_decoding  large JPEGs of a classifier may be decoded at 1/2, 1/4 or 1/8 of their size (decoding.shrink_jpeg)
    """

    task: Task
    instances: Instances | None = None
    activation: Activation | None = None
    backend: str
    precision: Precision = "fp32"
    artifact: InnerPath
    device_type: DeviceType | None = None
    cpu_features: tuple[str, ...] = ()
    fixed_batch: Annotated[int, Field(gt=0)] | None = None
    labels: InnerPath = "labels.json"
    preprocessing: PreprocessingConfig
    candidates_per_class: Annotated[int, Field(gt=0)] | None = None
    options: dict[str, Any] = Field(default={})
    limits: ImageLimits = ImageLimits()
    colours: ColourConfig = ColourConfig()
    scaled_decoding: bool = False
    max_images_per_inference: Annotated[int, Field(gt=0)] = 32

    @model_validator(mode="after")
    def _default_options_are_valid(self) -> "HandlerConfig":
        check_options(self.options_model, self.options)
        check_scaled_decoding(self.task, self.scaled_decoding)
        return self

    @property
    def options_model(self) -> type[PredictionOptions]:
        """Return what a request may choose."""
        return find_options(self.task, self.instances, self.activation)


class BackendConfig(StrictModel):
    """How a backend runs its artifact in this process."""

    precision: Precision = "fp32"
    cpu_features: tuple[str, ...] = ()
    threads: Annotated[int, Field(gt=0)] = 1
    pin_threads: bool = False


def read_handler_config(path: Path) -> HandlerConfig:
    """Return the `handler:` section of a `model-config.yaml`. Raises ConfigError."""
    document = read_yaml(path)
    if not isinstance(document, dict) or "handler" not in document:
        raise ConfigError(f"{path}: missing key 'handler'")
    return parse_config(HandlerConfig, document["handler"], f"{path} (handler)")
