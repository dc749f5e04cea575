"""Pictures with boxes: COCO annotations as COCO itself, Roboflow, CVAT and others lay them beside the pictures."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel

from mar_tools.images import find_images, show_line
from mar_tools.terminal import print_line
from mar_tools.training.folders import NAMED, PART_NAMES, PARTS, Look, Part, Picture, find_parts, look_at
from mar_tools.verification.coco_files import CocoCategory, CocoImage
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config, read_json

ANNOTATIONS = ("_annotations.coco.json", "annotations.json", "instances*.json")
LAYOUTS = "annotations.json, instances*.json or _annotations.coco.json, in the folder, its parts, or in annotations/"
LEAST_SIDE = 1.0  # pixels of the picture: a smaller box has no area, or is a slip of the mouse


@dataclass(frozen=True)
class Box:
    """xyxy in pixels of the upright picture. is_crowd: many objects in one box, which neither trains nor counts."""

    xyxy: tuple[float, float, float, float]
    class_id: int
    is_crowd: bool = False


@dataclass(frozen=True, kw_only=True)
class AnnotatedPicture(Picture):
    """A picture with its boxes, which may be none."""

    boxes: tuple[Box, ...]
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class AnnotatedFolder:
    """Pictures with boxes, and the names of the classes. left_out: what cannot be read, with the reason."""

    pictures: Sequence[AnnotatedPicture]
    labels: Sequence[str]
    left_out: Mapping[Path, str]

    def groups(self) -> list[set[str]]:
        """Return digests of pictures with boxes, and of those without: each part gets its share of both."""
        parted: tuple[set[str], set[str]] = (set(), set())
        for picture in self.pictures:
            parted[not picture.boxes].add(picture.digest)
        return [parted[0], parted[1] - parted[0]]

    def check_part(self, part: Part, pictures: Sequence[AnnotatedPicture]) -> None:
        """Tell of classes that a part does not show. Raises ConfigError where it has no box at all."""
        shown = {box.class_id for picture in pictures for box in picture.boxes if not box.is_crowd}
        if not shown:
            raise ConfigError(
                f"none of the {len(pictures)} pictures of the part {part!r} has a box; each of {', '.join(PARTS)} "
                "needs pictures with boxes"
            )
        missing = [show_line(label) for class_id, label in enumerate(self.labels) if class_id not in shown]
        if missing:
            print_line(f"{part}: no picture shows {', '.join(missing[:NAMED])} ({len(missing)} classes)")


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int = 0


class _Image(CocoImage):
    width: int | None = None
    height: int | None = None


class _File(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[CocoCategory]


@dataclass(frozen=True)
class _Source:
    file: Path
    pictures: Path
    part: Part | None


def is_annotated(folder: Path) -> bool:
    """Return whether a folder has COCO annotations."""
    return folder.is_dir() and next(find_annotations(folder), None) is not None


def find_annotations(folder: Path) -> Iterator[_Source]:
    """Yield the annotation files of a folder, and where their pictures lie.

    `train/_annotations.coco.json` beside the pictures; `annotations/instances_train.json` above `train/`; or
    `annotations.json` above or beside all of them.
    """
    for place, part in find_parts(sorted(folder.iterdir())).items():
        yield from (_Source(file, place, part) for file in _files_in(place))
    for file in [*_files_in(folder), *_files_in(folder / "annotations")]:
        words = [word for word in re.split("[^a-z]+", file.stem.lower()) if word in PART_NAMES]
        of_file = PART_NAMES[words[0]] if words else None
        yield _Source(file, _pictures_of(folder, of_file) or folder, of_file)


def _files_in(place: Path) -> list[Path]:
    return sorted({file for pattern in ANNOTATIONS for file in place.glob(pattern) if file.is_file()})


def _pictures_of(folder: Path, part: Part | None) -> Path | None:
    """Return the folder of a part's pictures: `train`, `train2017`, or one of these in `images`."""
    if part is None:
        return None
    places = [place for above in (folder, folder / "images") if above.is_dir() for place in sorted(above.iterdir())]
    return next((p for p in places if p.is_dir() and PART_NAMES.get(p.name.lower().rstrip("0123456789")) == part), None)


def read_annotated(folder: Path) -> AnnotatedFolder:
    """Read all annotations below a folder, and each picture once. Raises ConfigError where there is nothing to train.

    Classes are those that boxes name, in the order of their category ids. What cannot be used is left out, and told.
    A picture that several files name, as one for each class, has the boxes of all.
    """
    sources = list(find_annotations(folder)) if folder.is_dir() else []
    if not sources:
        raise ConfigError(f"{folder}: no annotations; expected {LAYOUTS}")
    documents = [parse_config(_File, _read_object(source.file), str(source.file)) for source in sources]
    labels = _find_labels(documents)
    if not labels:
        raise ConfigError(f"{sources[0].file}: no annotation has a box (`bbox`) of a category that the file names")
    listed = [
        (found, image, document, source.part)
        for source, document in zip(sources, documents, strict=True)
        for image, found in _locate(source, document.images)
    ]
    looks, left_out = look_at(list(dict.fromkeys(path for path, _, _, _ in listed)))
    told: Counter[str] = Counter()
    boxes_of = {id(document): _by_image(document, labels, told) for document in documents}
    pictures: dict[Path, AnnotatedPicture] = {}
    for path, image, document, part in listed:
        if path not in looks:
            continue
        problem = _size_problem(image, looks[path])
        if problem:
            left_out[path] = problem
            continue
        size = looks[path].size_hw
        boxes = _clean(boxes_of[id(document)].get(image.id, []), size, told)
        picture = AnnotatedPicture(path=path, digest=looks[path].digest, part=part, boxes=boxes, size_hw=size)
        before = pictures.get(path)
        if before is not None:
            told["pictures are annotated several times, and have the boxes of all"] += 1
            picture = replace(picture, part=before.part or part, boxes=tuple(dict.fromkeys(before.boxes + boxes)))
        pictures[path] = picture
    told["pictures of another size than their annotations say (turned, or scaled since), left out"] += sum(
        path in looks for path in left_out
    )
    told["pictures without a box, which teach what is none"] += sum(not picture.boxes for picture in pictures.values())
    for what, count in told.items():
        if count:
            print_line(f"{count} {what}")
    return AnnotatedFolder(list(pictures.values()), labels, left_out)


def _read_object(file: Path) -> Mapping[str, object]:
    document = read_json(file)
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected a COCO file, a JSON object with images, annotations and categories")
    return document


def _find_labels(documents: Sequence[_File]) -> list[str]:
    """Return the names of the categories that have boxes: others, as the root that Roboflow adds, are no classes."""
    names: dict[str, int] = {}
    for document in documents:
        used = {each.category_id for each in document.annotations if each.bbox is not None}
        for category in sorted(document.categories, key=lambda each: each.id):
            if category.id in used:
                names.setdefault(category.name, category.id)
    return sorted(names, key=lambda name: (names[name], name))


def _locate(source: _Source, images: Sequence[_Image]) -> Iterator[tuple[_Image, Path]]:
    """Yield images with their files: below the folder of the pictures as they are called, or by their last name."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in find_images(source.pictures):
        by_name[path.name].append(path)
    missing = []
    for image in images:
        known = by_name.get(Path(image.file_name).name, [])
        placed = [path for path in known if path == source.pictures / image.file_name]
        exact = [path for path in known if path.as_posix().endswith(f"/{image.file_name}")]
        found = placed or exact or known
        if len(found) == 1:
            yield image, found[0]
        else:
            missing.append(image.file_name)
    if missing:
        shown = ", ".join(show_line(name) for name in missing[:NAMED])
        if len(missing) == len(images):
            raise ConfigError(f"{source.file}: none of its {len(images)} pictures is in {source.pictures}: {shown}")
        print_line(f"{source.file.name}: {len(missing)} of {len(images)} pictures are not there: {shown}")


def _by_image(document: _File, labels: Sequence[str], told: Counter[str]) -> dict[int, list[tuple[_Annotation, int]]]:
    """Return the annotations of each image with their class ids."""
    class_ids = {
        category.id: labels.index(category.name) for category in document.categories if category.name in labels
    }
    images = {image.id for image in document.images}
    found: dict[int, list[tuple[_Annotation, int]]] = defaultdict(list)
    for each in document.annotations:
        if each.image_id not in images or each.category_id not in class_ids:
            told["annotations of images or categories that the file does not name, left out"] += 1
        elif each.bbox is None or not all(map(math.isfinite, each.bbox)):
            told["annotations without a box, left out"] += 1
        else:
            found[each.image_id].append((each, class_ids[each.category_id]))
    return found


def _clean(
    annotations: Sequence[tuple[_Annotation, int]], size_hw: tuple[int, int], told: Counter[str]
) -> tuple[Box, ...]:
    """Return the boxes of a picture, within it."""
    boxes = []
    for each, class_id in annotations:
        assert each.bbox is not None
        left, top, width, height = each.bbox
        x1, x2 = (min(max(x, 0.0), float(size_hw[1])) for x in (left, left + width))
        y1, y2 = (min(max(y, 0.0), float(size_hw[0])) for y in (top, top + height))
        if x2 - x1 < LEAST_SIDE or y2 - y1 < LEAST_SIDE:
            told["boxes of less than a pixel in their picture, left out"] += 1
            continue
        if max(abs(x1 - left), abs(x2 - left - width), abs(y1 - top), abs(y2 - top - height)) > LEAST_SIDE:
            told["boxes reach beyond their picture, and are cut at its edge"] += 1
        told["boxes are crowds, which do not train and do not count"] += bool(each.iscrowd)
        boxes.append(Box((x1, y1, x2, y2), class_id, bool(each.iscrowd)))
    return tuple(boxes)


def _size_problem(image: _Image, look: Look) -> str:
    stated = (image.height, image.width)
    if None in stated or stated == look.size_hw:
        return ""
    return f"it has {look.size_hw[1]} x {look.size_hw[0]} pixels, its annotation says {image.width} x {image.height}"
