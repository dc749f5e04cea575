"""Python files and packages that come with a model: run from where they lie, without a trace beside them.

A file in a folder beside the recipe is one of a package where that folder has an `__init__.py`; else it is on its own.
Nothing here writes bytecode, nor reads any: an artifact's bytes are verified.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from vision_serving.errors import ConfigError, foreign_code

INIT = "__init__.py"
# What an archive carries of a package. Weights have a place of their own.
CARRIED = (".py", ".json", ".yaml", ".txt")


class SourceLoader(SourceFileLoader):
    """Runs a file's source. Python keeps bytecode only of files whose time it is told."""

    def path_stats(self, path: str) -> Any:
        raise OSError(f"{path} has no bytecode")


class PackageFinder(MetaPathFinder):
    """Finds the modules of one package in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name, *inner = fullname.split(".")
        if name != self.folder.name:
            return None
        place = self.folder.joinpath(*inner)
        for file, folders in ((place / INIT, [str(place)]), (place.with_name(f"{place.name}.py"), None)):
            if file.is_file():
                loader = SourceLoader(fullname, str(file))
                return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=folders)
        return None


def load_attribute(folder: Path, file: str, name: str) -> Any:
    """Return a class or function of a Python file, whose path begins at `folder`. Raises ConfigError."""
    path = find_file(folder, file)
    package = find_package(folder, file)
    module = _load_file(path) if package is None else _load_package(path, package)
    found = getattr(module, name, None)
    if found is None:
        own = (n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__)
        public = sorted(name for name in own if not name.startswith("_"))
        raise ConfigError(f"{path} has no {name!r}; it has {public}")
    return found


def find_file(folder: Path, file: str) -> Path:
    """Return the path of a file, of a package's own one where its folder is named. Raises ConfigError."""
    path = folder / file
    if (path / INIT).is_file():
        path /= INIT
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; `file` is looked up beside the recipe")
    return path


def find_package(folder: Path, file: str) -> Path | None:
    """Return the folder of the package that a file lies in; None for a file on its own."""
    parts = [part for part in Path(file).parts if part != ".."]
    base = folder.joinpath(*Path(file).parts[: len(Path(file).parts) - len(parts)])
    package = base.absolute() / parts[0]
    return package if (package / INIT).is_file() else None


def list_files(folder: Path, file: str) -> dict[str, Path]:
    """Return what travels with a file, by its path in the artifact: itself, or the code and small data of its package.

    The first is the file itself. Raises ConfigError for a link out of the package.
    """
    path, package = find_file(folder, file), find_package(folder, file)
    if package is None:
        return {path.name: path}
    found = (each for each in sorted(package.rglob("*")) if each.suffix in CARRIED and "__pycache__" not in each.parts)
    files = [path.absolute(), *(each for each in found if each != path.absolute())]
    outside = [each for each in files if package.resolve() not in each.resolve().parents or not each.is_file()]
    if outside:
        raise ConfigError(f"{outside[0]}: leads out of its package, or is no file; put the file itself there")
    return {each.relative_to(package.parent).as_posix(): each for each in files}


def _load_file(path: Path) -> ModuleType:
    """Run a file on its own as a module, which dataclasses with postponed annotations look up by its name."""
    name = f"network_source_{path.stem}"
    spec = spec_from_file_location(name, path, loader=SourceLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    try:
        with foreign_code(lambda error: _explain(error, path)):
            spec.loader.exec_module(module)
    except ConfigError:
        del sys.modules[name]
        raise
    return module


def _load_package(path: Path, package: Path) -> ModuleType:
    """Import a file of a package under the package's own name, in the place of any package of that name before it."""
    name = package.name
    former = [finder for finder in sys.meta_path if isinstance(finder, PackageFinder) and finder.folder.name == name]
    if not former and name in sys.modules:
        raise ConfigError(f"{package}: a package {name!r} is in use already; give this folder another name")
    for finder in former:
        sys.meta_path.remove(finder)
    for loaded in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[loaded]
    sys.meta_path.insert(0, PackageFinder(package))
    inner = path.absolute().relative_to(package.parent).with_suffix("").parts
    with foreign_code(lambda error: _explain(error, path)):
        return import_module(".".join(inner).removesuffix(".__init__"))


def _explain(error: BaseException, path: Path) -> ConfigError:
    reason = f"{path} cannot be run: {type(error).__name__}: {error}"
    beside = path.parent / f"{str(getattr(error, 'name', None)).partition('.')[0]}.py"
    if "no known parent package" in str(error) or (isinstance(error, ModuleNotFoundError) and beside.is_file()):
        reason += (
            f"; files import each other in a package: put them into a folder beside the recipe, with an {INIT}, and "
            "write `from .name import ...`"
        )
    return ConfigError(reason)
