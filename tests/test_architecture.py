"""The import rules of the design, read from the sources."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TinyModel

from mar_tools.exporting.exporters import EXPORTERS
from mar_tools.models.sources import SOURCES as SOURCES_OF_MODELS
from vision_serving.backends import BACKENDS
from vision_serving.graphs.sources import BUILDERS, SOURCE_KEYS

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "handlers" / "vision_serving"
TOOLS = ROOT / "scripts" / "mar_tools"
ENTRY_FILES = sorted((ROOT / "handlers").glob("*.py"))
CORE_FILES = sorted(CORE.rglob("*.py"))
TOOL_FILES = sorted(TOOLS.rglob("*.py"))
SCRIPT_FILES = sorted((ROOT / "scripts").glob("*.py"))
SOURCES = [*ENTRY_FILES, *CORE_FILES, *TOOL_FILES, *SCRIPT_FILES]

# Ground files, and packages in the order of a request: each imports from those of lower layers.
LAYERS = (
    (
        "errors",
        "validation",
        "options",
        "config",
        "predictions",
        "metrics",
        "labels",
        "cores",
        "geometry",
        "foreign_errors",
        "source_constants",
    ),
    ("requests", "graphs"),
    ("pictures", "backends"),
    ("results", "explaining"),
    ("answers",),
    ("worker", "batching"),
    ("handler",),
)
# What a backend's files import beside its own runtime, which is all else.
SHARED = {"vision_serving", "mar_tools", "torch", "torchvision", "numpy", "orjson", "safetensors", "onnx"}
UNSPEAKING_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


def file_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_in(nodes: Iterator[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are a second spelling"
            found.add(str(node.module))
    return found


def imports_of(path: Path) -> set[str]:
    return imports_in(ast.walk(parse(path)))


def module_level_imports_of(path: Path) -> set[str]:
    return imports_in(iter(parse(path).body))


def packages(imports: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in imports}


def layer_of(module: str) -> int:
    """Of `vision_serving.pictures.tiles`: that of `pictures`."""
    name = module.split(".")[1]
    assert any(name in layer for layer in LAYERS), (
        f"{name} has no layer: say in LAYERS and in the design where it belongs"
    )
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", CORE_FILES, ids=file_id)
def test_a_core_module_imports_only_from_lower_layers(path: Path) -> None:
    importer = "vision_serving." + path.relative_to(CORE).parts[0].removesuffix(".py")
    imported = sorted(name for name in imports_of(path) if name.startswith("vision_serving."))
    assert [
        name
        for name in imported
        if name.split(".")[1] != importer.split(".")[1] and layer_of(name) > layer_of(importer)
    ] == []


@pytest.mark.parametrize("path", [*CORE_FILES, *ENTRY_FILES], ids=file_id)
def test_packed_code_imports_neither_the_tools_nor_torchserve(path: Path) -> None:
    assert packages(imports_of(path)) & {"mar_tools", "ts", "model_archiver"} == set()


@pytest.mark.parametrize("path", CORE_FILES, ids=file_id)
def test_the_core_does_not_know_the_entry_files(path: Path) -> None:
    assert packages(imports_of(path)) & {entry.stem for entry in ENTRY_FILES} == set()


@pytest.mark.parametrize("path", TOOL_FILES, ids=file_id)
def test_the_tools_do_not_import_scripts(path: Path) -> None:
    assert packages(imports_of(path)) & {script.stem for script in SCRIPT_FILES} == set()


@pytest.mark.parametrize("path", SOURCES, ids=file_id)
def test_nobody_writes_a_second_spelling_of_a_module(path: Path) -> None:
    assert packages(imports_of(path)) & {"handlers", "scripts"} == set()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_runtime_is_imported_only_by_its_own_backend_and_exporter(backend: str) -> None:
    own = {CORE / "backends" / f"{backend}.py", TOOLS / "exporting" / "exporters" / f"{backend}.py"}
    runtime = set().union(*(packages(imports_of(path)) for path in own)) - SHARED - sys.stdlib_module_names
    if backend == "onnxruntime":
        own.add(CORE / "graphs" / "onnx_network.py")  # a model that is an ONNX file has no other reference
    assert {path for path in SOURCES if runtime & packages(imports_of(path))} <= own


@pytest.mark.parametrize("path", [*CORE_FILES, *ENTRY_FILES], ids=file_id)
def test_torchvision_is_a_module_level_import_of_the_detector_graphs_alone(path: Path) -> None:
    allowed = {CORE / "graphs" / f"{name}.py" for name in ("one_stage", "two_stage", "instance_heads")}
    assert path in allowed or "torchvision" not in packages(module_level_imports_of(path))


def test_the_tools_that_every_process_of_a_build_imports_do_not_wait_for_torchvision() -> None:
    found = {
        path.relative_to(TOOLS).as_posix()
        for path in TOOL_FILES
        if "torchvision" in packages(module_level_imports_of(path))
    }
    assert found == {"models/sources/torchvision.py"}


@pytest.mark.parametrize("path", [*CORE_FILES, *ENTRY_FILES], ids=file_id)
def test_libraries_of_models_are_no_module_level_import_of_packed_code(path: Path) -> None:
    assert packages(module_level_imports_of(path)) & {"timm", "transformers", "onnx"} == set()


def test_every_source_of_a_recipe_has_its_builder_and_its_tools() -> None:
    assert SOURCES_OF_MODELS.keys() == BUILDERS.keys() == SOURCE_KEYS.keys()
    for module_name in SOURCES_OF_MODELS.values():
        assert importlib.util.find_spec(module_name) is not None


@pytest.mark.parametrize("path", sorted((CORE / "backends").glob("*.py")), ids=file_id)
def test_a_backend_knows_nothing_of_images_labels_or_http(path: Path) -> None:
    foreign = {"pictures", "results", "predictions", "requests", "answers", "labels", "handler"}
    assert {name.split(".")[1] for name in imports_of(path) if name.startswith("vision_serving.")} & foreign == set()


def test_every_backend_has_its_exporter_and_file_names_are_the_keys() -> None:
    assert BACKENDS.keys() == EXPORTERS.keys()
    for key in BACKENDS:
        assert BACKENDS[key].partition(":")[0] == f"vision_serving.backends.{key}"
        assert EXPORTERS[key] == f"mar_tools.exporting.exporters.{key}"


def test_every_backend_and_exporter_file_is_in_its_table() -> None:
    for folder in (CORE / "backends", TOOLS / "exporting" / "exporters"):
        assert {path.stem for path in folder.glob("*.py")} - {"__init__", "base"} == BACKENDS.keys()


@pytest.mark.parametrize("path", ENTRY_FILES, ids=file_id)
def test_an_entry_file_defines_one_class_and_no_handle(path: Path) -> None:
    body = parse(path).body
    definitions = [node for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [type(node) for node in definitions] == [ast.ClassDef]
    names = {node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    assert "handle" not in names


@pytest.mark.parametrize("path", ENTRY_FILES, ids=file_id)
def test_an_entry_file_is_not_named_like_a_handler_of_torchserve(path: Path) -> None:
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    built_in = {module.stem for module in (Path(spec.origin).parent / "torch_handler").iterdir()}
    assert path.stem not in built_in
    assert "image_classifier" in built_in, "looked in the wrong place"


@pytest.mark.parametrize("path", SOURCES, ids=file_id)
def test_a_module_fits_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("folder", ["handlers", "scripts", "tests", "examples"])
def test_file_names_say_what_is_inside(folder: str) -> None:
    names = {path for path in (ROOT / folder).rglob("*") if path.suffix == ".py" or path.is_dir()}
    assert sorted(file_id(path) for path in names if path.stem in UNSPEAKING_NAMES) == []


def mutable_class_attributes(path: Path) -> list[str]:
    """Class-level lists, dicts and sets; pydantic copies the defaults of its models, so those are no shared state."""
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    return [
        f"{definition.name}:{statement.lineno}"
        for definition in ast.walk(parse(path))
        if isinstance(definition, ast.ClassDef)
        and not any(isinstance(base, ast.Name) and base.id == "StrictModel" for base in definition.bases)
        for statement in definition.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(statement.value, mutable)
    ]


@pytest.mark.parametrize("path", [*CORE_FILES, *ENTRY_FILES], ids=file_id)
def test_no_class_of_a_worker_holds_shared_mutable_state(path: Path) -> None:
    assert mutable_class_attributes(path) == []


def test_a_classifier_starts_without_torchvision_or_a_runtime() -> None:
    code = "import sys, image_classification; print(sorted({'torchvision', 'openvino', 'ts'} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


@pytest.mark.parametrize("script", ["serve_models", "manage_models", "predict_images", "health_probe"])
def test_a_script_that_talks_to_a_server_does_not_wait_for_pytorch(script: str) -> None:
    code = f"import sys, {script}; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "scripts", ROOT / "handlers")))}
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert finished.stdout.strip() == "False"


PREDICT_ONCE = """
import io, sys
from pathlib import Path
import PIL.Image, torch
from image_classification import ImageClassificationHandler
from object_detection import ObjectDetectionHandler
from vision_serving.requests.payload import Payload
from vision_serving.predictions import Classification, Detections

picture = io.BytesIO()
PIL.Image.new("RGB", (40, 30), "red").save(picture, "PNG")
for folder, handler, options, expected in (
    (sys.argv[1], ImageClassificationHandler(), {}, Classification),
    (sys.argv[2], ObjectDetectionHandler(), {"score_threshold": 0.0}, Detections),
):
    handler.load(Path(folder), torch.device("cpu"))
    (prediction,) = handler.predict([Payload(images=(picture.getvalue(),), options=options)])[0].items
    assert isinstance(prediction, expected), prediction
print(sorted({"torchvision", "ts"} & set(sys.modules)))
"""


def test_exported_archives_start_and_predict_without_torchvision(
    tiny_classifier: TinyModel, tiny_detector: TinyModel
) -> None:
    """Both in one process: neither handler imports it."""
    folders = [str(model.folders["openvino"]) for model in (tiny_classifier, tiny_detector)]
    finished = subprocess.run([sys.executable, "-c", PREDICT_ONCE, *folders], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "[]"


def test_the_product_imports_nothing_of_the_laboratory() -> None:
    product = [path for folder in ("handlers", "scripts", "client") for path in (ROOT / folder).rglob("*.py")]
    assert [file_id(path) for path in product if "lab" in packages(imports_of(path))] == []
