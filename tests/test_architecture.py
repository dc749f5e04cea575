"""The import rules of the design, read from the sources."""

import ast
import functools
import graphlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest
from conftest import TinyModel

from mar_tools.exporting.exporters import EXPORTERS
from mar_tools.models.sources import SOURCES as SOURCES_OF_MODELS
from vision_serving.backends import BACKENDS
from vision_serving.graphs.sources import BUILDERS, SOURCE_KEYS

ROOT = Path(__file__).resolve().parents[1]
CORE, TOOLS, LAB = (ROOT / name for name in ("handlers/vision_serving", "scripts/mar_tools", "lab"))
ENTRY_FILES = sorted((ROOT / "handlers").glob("*.py"))
CORE_FILES = sorted(CORE.rglob("*.py"))
PACKED = [*ENTRY_FILES, *CORE_FILES]
TOOL_FILES = sorted(TOOLS.rglob("*.py"))
SCRIPT_FILES = sorted((ROOT / "scripts").glob("*.py"))
CLIENT_FILES = sorted((ROOT / "client" / "vision_client").rglob("*.py"))
PRODUCT = [*PACKED, *TOOL_FILES, *SCRIPT_FILES, *CLIENT_FILES]
TESTS = ROOT / "tests"
TESTS_OF_THE_PRODUCT = [path for path in sorted(TESTS.rglob("*.py")) if TESTS / "lab" not in path.parents]
# But for the servers of others, which run in environments of their own.
LAB_FILES = [path for path in sorted(LAB.rglob("*.py")) if LAB / "peers" / "servers" not in path.parents]
SOURCES = [*PRODUCT, *LAB_FILES]

# The lowest layer first. A folder or file imports those of lower layers alone. Those of the lowest import each other.
LAYERS = {
    CORE: (
        "errors validation options config predictions timings labels cores geometry foreign_errors source_constants "
        "log_lines",
        "requests graphs",
        "pictures backends",
        "results",
        "explaining",
        "answers",
        "batching",
        "handler",
        "worker",
    ),
    TOOLS: (
        "command_line terminal machine child_processes asking locking images waiting measures distributions",
        "archives models",
        "exporting",
        "verification",
        "drafting building edge serving training",
        "playground predicting load_testing reporting compressing",
        "front drift",
        "tuning cluster reviewing monitoring upkeep",
        "ray_serving",
    ),
    LAB: (
        "testbed peers fidelity checkpoints published compression",
        "hostile sweeping",
        "reliability",
        "pages",
        "entry",
    ),
}
# What a backend's files import beside its own runtime, which is all else.
SHARED = {"vision_serving", "mar_tools", "torch", "torchvision", "numpy", "orjson", "pydantic", "safetensors", "onnx"}
UNSPEAKING_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the dotted names of what is imported; of `from package import module`, both."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@functools.cache
def imports_of(path: Path) -> set[str]:
    return imports_in(ast.walk(parse(path)))


def packages_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(path)}


def module_level_packages_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_in(parse(path).body)}


def importers(paths: Iterable[Path], packages: Collection[str]) -> list[str]:
    """Return the files of `paths` that import one of `packages`, wherever in the file."""
    return [name_of(path) for path in paths if packages_of(path) & set(packages)]


def module_of(path: Path) -> str:
    """Return the dotted name of a file of the packages."""
    root = next(root for root in LAYERS if root in path.parents)
    return ".".join((root.name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")


def layer_of(root: Path, module: str) -> int:
    """Return the layer of `vision_serving.pictures.tiles`: that of `pictures`. The entries, lab/*.py, are on top."""
    name = module.split(".")[1]
    for number, layer in enumerate(LAYERS[root]):
        if name in layer.split() or (layer == "entry" and (root / f"{name}.py").exists()):
            return number
    raise AssertionError(f"{module} has no layer: say in LAYERS and in the design where it belongs")


def is_downwards(root: Path, importer: str, imported: str) -> bool:
    if importer.split(".")[1] == imported.split(".")[1]:
        return True
    below = layer_of(root, importer) - layer_of(root, imported)
    return below > 0 or (below == 0 and layer_of(root, importer) == 0)


def arrows(root: Path) -> list[tuple[str, str]]:
    """Return who imports whom within one package, as dotted names of files."""
    modules = {module_of(path): path for path in root.rglob("*.py")}
    return [
        (importer, imported)
        for importer, path in modules.items()
        for imported in sorted(imports_of(path) & modules.keys() - {importer, root.name})
        if importer != root.name
    ]


@pytest.mark.parametrize("root", LAYERS, ids=lambda root: root.name)
def test_a_wing_imports_from_lower_layers_alone(root: Path) -> None:
    assert [arrow for arrow in arrows(root) if not is_downwards(root, *arrow)] == []


@pytest.mark.parametrize("root", LAYERS, ids=lambda root: root.name)
def test_no_files_import_each_other_in_a_circle(root: Path) -> None:
    imported: dict[str, set[str]] = {}
    for importer, other in arrows(root):
        imported.setdefault(importer, set()).add(other)
    list(graphlib.TopologicalSorter(imported).static_order())  # names the circle where there is one


def test_every_layer_names_what_is_there() -> None:
    for root, layers in LAYERS.items():
        there = {path.stem for path in root.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
        assert {name for layer in layers for name in layer.split()} - {"entry"} <= there


def test_packed_code_imports_neither_the_tools_nor_torchserve() -> None:
    assert importers(PACKED, {"mar_tools", "vision_client", "ts", "model_archiver"}) == []


def test_the_core_does_not_know_the_entry_files() -> None:
    assert importers(CORE_FILES, [entry.stem for entry in ENTRY_FILES]) == []


def test_the_tools_do_not_import_scripts() -> None:
    assert importers(TOOL_FILES, [script.stem for script in SCRIPT_FILES]) == []


def test_the_product_imports_nothing_of_the_laboratory() -> None:
    assert importers([*PRODUCT, *TESTS_OF_THE_PRODUCT], {"lab"}) == []


def test_the_client_needs_nothing_else_of_this_project() -> None:
    assert importers(CLIENT_FILES, {"vision_serving", "mar_tools", "lab", "torch"}) == []


def test_nobody_writes_a_second_spelling_of_a_module() -> None:
    assert importers(SOURCES, {"handlers", "scripts"}) == []
    relative = [node for path in SOURCES for node in ast.walk(parse(path)) if getattr(node, "level", 0)]
    assert relative == [], "relative imports are one"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_runtime_is_imported_only_by_its_own_backend_and_exporter(backend: str) -> None:
    own = {CORE / "backends" / f"{backend}.py", TOOLS / "exporting" / "exporters" / f"{backend}.py"}
    runtime = set().union(*map(packages_of, own)) - SHARED - sys.stdlib_module_names
    own.update((TOOLS / "edge" / "formats").glob("*.py"), (TOOLS / "edge" / "carried").glob("*.py"))  # of other devices
    if backend == "onnxruntime":
        own.add(CORE / "graphs" / "onnx_network.py")  # a model that is an ONNX file has no other reference
    assert set(importers(SOURCES, runtime)) <= {name_of(path) for path in own}


def test_torchvision_is_a_module_level_import_of_the_detector_graphs_alone() -> None:
    allowed = {CORE / "graphs" / f"{name}.py" for name in ("one_stage", "two_stage", "instance_heads")}
    assert {path for path in PACKED if "torchvision" in module_level_packages_of(path)} <= allowed


def test_the_tools_that_every_process_of_a_build_imports_do_not_wait_for_torchvision() -> None:
    of_others = {TOOLS / "drafting", TOOLS / "training", TOOLS / "compressing"}  # which no build imports
    built = [path for path in TOOL_FILES if path.parent not in of_others]
    found = [path for path in built if "torchvision" in module_level_packages_of(path)]
    assert found == [TOOLS / "models" / "sources" / "torchvision.py"]


def test_libraries_of_models_are_no_module_level_import_of_packed_code() -> None:
    libraries = {"timm", "transformers", "onnx"}
    assert [name_of(path) for path in PACKED if module_level_packages_of(path) & libraries] == []


def test_every_source_of_a_recipe_has_its_builder_and_its_tools() -> None:
    assert SOURCES_OF_MODELS.keys() == BUILDERS.keys() == SOURCE_KEYS.keys()
    for module_name in SOURCES_OF_MODELS.values():
        assert importlib.util.find_spec(module_name) is not None


def test_a_backend_knows_nothing_of_images_labels_or_http() -> None:
    foreign = {"pictures", "results", "predictions", "requests", "answers", "labels", "handler"}
    known = [arrow for arrow in arrows(CORE) if arrow[0].startswith("vision_serving.backends")]
    assert [arrow for arrow in known if arrow[1].split(".")[1] in foreign] == []
    assert known


def test_every_backend_has_its_exporter_and_file_names_are_the_keys() -> None:
    assert BACKENDS.keys() == EXPORTERS.keys()
    for key in BACKENDS:
        assert BACKENDS[key].partition(":")[0] == f"vision_serving.backends.{key}"
        assert EXPORTERS[key] == f"mar_tools.exporting.exporters.{key}"


def test_every_backend_and_exporter_file_is_in_its_table() -> None:
    for folder in (CORE / "backends", TOOLS / "exporting" / "exporters"):
        assert {path.stem for path in folder.glob("*.py")} - {"__init__", "base"} == BACKENDS.keys()


def test_an_entry_file_defines_one_class_and_no_handle() -> None:
    assert ENTRY_FILES
    for path in ENTRY_FILES:
        body = parse(path).body
        definitions = [node for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
        assert [type(node) for node in definitions] == [ast.ClassDef], path
        names = {node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)}
        assert "handle" not in names, path


def test_an_entry_file_is_not_named_like_a_handler_of_torchserve() -> None:
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    built_in = {module.stem for module in (Path(spec.origin).parent / "torch_handler").iterdir()}
    assert {path.stem for path in ENTRY_FILES} & built_in == set()
    assert "image_classifier" in built_in, "looked in the wrong place"


def test_a_module_fits_300_lines() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_file_names_say_what_is_inside() -> None:
    folders = ("handlers", "scripts", "client", "lab", "tests", "examples")
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    ours = (path for path in paths if ".venv" not in path.parts[len(ROOT.parts) :])  # environments of peers
    names = (path for path in ours if path.suffix == ".py" or path.is_dir())
    assert [name_of(path) for path in names if path.stem in UNSPEAKING_NAMES] == []


def mutable_class_attributes(path: Path) -> list[str]:
    """Return class-level lists, dicts and sets; pydantic copies the defaults of its models: those are not shared."""
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    return [
        f"{name_of(path)}:{statement.lineno} {definition.name}"
        for definition in ast.walk(parse(path))
        if isinstance(definition, ast.ClassDef)
        and not any(isinstance(base, ast.Name) and base.id == "StrictModel" for base in definition.bases)
        for statement in definition.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(statement.value, mutable)
    ]


def test_no_class_of_a_worker_holds_shared_mutable_state() -> None:
    assert [found for path in PACKED for found in mutable_class_attributes(path)] == []


def test_a_classifier_starts_without_torchvision_or_a_runtime() -> None:
    code = "import sys, image_classification; print(sorted({'torchvision', 'openvino', 'ts'} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_a_script_that_talks_to_a_server_does_not_wait_for_pytorch() -> None:
    scripts = ("serve_models", "manage_models", "predict_images", "health_probe", "serve_front")
    code = "".join(f"import {script}; print('torch' in sys.modules); " for script in scripts)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "scripts", ROOT / "handlers")))}
    command = [sys.executable, "-c", f"import sys; {code}"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert finished.stdout.split() == ["False"] * len(scripts)


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


def test_an_installed_copy_has_every_package_and_every_entry_file() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = dict(re.findall(r"^(packages|py-modules) = (\[.*?\])$", project, re.MULTILINE | re.DOTALL))
    roots = (CORE.parent, TOOLS.parent, ROOT / "client")
    homes = [path.parent.relative_to(root) for root in roots for path in root.rglob("*/__init__.py")]
    assert sorted(ast.literal_eval(lists["packages"])) == sorted(".".join(home.parts) for home in homes)
    assert ast.literal_eval(lists["py-modules"]) == [path.stem for path in ENTRY_FILES]
