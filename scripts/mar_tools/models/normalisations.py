"""The means and stds that networks are usually trained with, of pixels from 0 to 1."""

Values = tuple[float, ...]  # a number a channel

IMAGENET: tuple[Values, Values] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Only few networks, such as those of Caffe, are trained with the last one.
MINUS_MEAN = "pixels in [0, 255] minus ImageNet's mean"
NORMALISATIONS: dict[str, tuple[Values, Values]] = {
    "ImageNet's mean and std": IMAGENET,
    "mean 0 and std 1": ((0.0,) * 3, (1.0,) * 3),
    "mean 0.5 and std 0.5": ((0.5,) * 3, (0.5,) * 3),
    "pixels in [0, 255]": ((0.0,) * 3, (1 / 255,) * 3),
    MINUS_MEAN: (IMAGENET[0], (1 / 255,) * 3),
}


def write_normalisation(mean: Values, std: Values) -> dict[str, list[float]]:
    """Return both as a recipe has them: whole numbers as such, others without the digits of rounding."""
    return {"mean": list(map(_write_number, mean)), "std": list(map(_write_number, std))}


def _write_number(value: float) -> float:
    return round(value, 9) if value % 1 else int(value)
