"""What this version asks of the settings, keys and archives of a server that an earlier one runs.

Each is judged by the code that reads it at a start, so that what is said here is what a start will say.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from mar_tools.archives.archive import DIGESTS, SBOM, Archive, open_archive
from mar_tools.archives.checks import BUILD_AGAIN, verify_archive
from mar_tools.archives.golden_prediction import GOLDEN
from mar_tools.archives.policy import check_served, read_policy
from mar_tools.front.client_keys import ClientKeys
from mar_tools.front.settings import FrontSettings
from mar_tools.serving.archive_choice import check_models, file_name, list_entries
from mar_tools.serving.memory_bounds import read_bounds
from mar_tools.serving.setting_names import NUMBERS, OTHERS, OURS, check_settings
from mar_tools.upkeep.changes import ARCHIVES, CONFIG, FRONT, RECIPES, STATE, VERSION, Change, Place, find_changes
from vision_serving.errors import ConfigError
from vision_serving.validation import find_near, parse_config, read_yaml
from vision_serving.worker.server_settings import choose_state_folder, read_properties, read_text

OURS_WITHIN = "vision_serving/"  # of any archive that this project built
PACKAGE = "vision-serving"
RECIPE_NAME = re.compile(r"^name:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)

Verdict = Literal["as is", "look", "do"]


@dataclass(frozen=True)
class Finding:
    """verdict: `do` where this version refuses what is there. todo: the command or the line that mends it."""

    place: Place
    name: str
    verdict: Verdict
    text: str
    todo: str = ""


@dataclass(frozen=True)
class Running:
    """Where the server lies that is to be upgraded. checkout: which runs it.

    front: its front.yaml, None where it has no front. recipes: folders with recipes of its own.
    """

    checkout: Path
    config: Path
    front: Path | None
    recipes: tuple[Path, ...]


def check_upgrade(running: Running) -> list[Finding]:
    """Return what was found, by places. Raises ConfigError where the settings cannot be read at all."""
    text = read_text(running.config)
    values = read_properties(text)
    state = choose_state_folder(running.config.resolve().parent, values)
    front, found = _check_front(running.front) if running.front else (None, [])
    return [
        *_check_config(values, text, front),
        *found,
        *_check_keys(running, state, front),
        *_check_archives(running, text),
        *_check_recipes(list_recipes(running.recipes)),
    ]


def _check_config(values: Mapping[str, str], text: str, front: FrontSettings | None) -> Iterator[Finding]:
    unread = {key: value for key, value in values.items() if _fault(key, value, "plugins_path" in values)}
    for key, value in unread.items():
        fault = str(_fault(key, value, "plugins_path" in values))
        yield Finding(CONFIG, key, "do", fault, f"{CONFIG}: correct or remove {key}")
    rest = {key: value for key, value in values.items() if key not in unread}
    for name, check in (
        ("settings", lambda: check_settings(rest)),
        ("models", lambda: check_models(text)),
        ("memory", lambda: read_bounds(rest, front.explanations_at_once if front else 0)),
    ):
        try:
            check()
        except ConfigError as error:
            yield Finding(CONFIG, name, "do", _shorten(error), f"{CONFIG}: correct what is named above")
    for change in find_changes(CONFIG, "advice"):
        if change.key not in values.get("vmargs", ""):
            yield Finding(CONFIG, "vmargs", "look", f"{change.value}: {change.text}")
    yield from (Finding(CONFIG, c.key, "as is", f"new: {c.text}") for c in _absent(values))


def _absent(values: Mapping[str, str]) -> list[Change]:
    return [change for change in find_changes(CONFIG, "new") if change.key not in values]


def _fault(key: str, value: str, has_plugins: bool) -> str | None:
    """Return why a start would refuse a key by itself. Plug-ins of TorchServe have keys of their own."""
    if key in OTHERS | OURS or (has_plugins and key not in NUMBERS):
        return None
    try:
        check_settings({key: value})
    except ConfigError as error:
        return _shorten(error)
    return None


def _shorten(error: ConfigError) -> str:
    return str(error).removeprefix(f"{CONFIG}: ")


def _check_front(file: Path) -> tuple[FrontSettings | None, list[Finding]]:
    """Return the settings as they are once all is done that the findings say; None where more is wrong."""
    given = read_yaml(file)
    if not isinstance(given, dict):
        return None, [Finding(FRONT, file.name, "do", "no keys are in it", f"{FRONT}: begin with the one of {VERSION}")]
    found, values = [], dict(given)
    for change in find_changes(FRONT, "renamed"):
        if change.former[0] in values and change.key not in values:
            values[change.key] = values.pop(change.former[0])
            todo = f"{FRONT}: rename {change.former[0]} to {change.key}"
            found.append(Finding(FRONT, change.former[0], "do", f"now {change.key}. {change.text}", todo))
    for change in find_changes(FRONT, "needed"):
        if change.key not in values:
            values |= read_line(change.line)
            found.append(
                Finding(FRONT, change.key, "do", f"new and needed: {change.text}", f"{FRONT}: add {change.line}")
            )
    for key in [key for key in values if key not in FrontSettings.model_fields]:
        near = find_near(str(key), FrontSettings.model_fields)
        hint = f"; did you mean {near}?" if near else ""
        found.append(Finding(FRONT, str(key), "do", f"nobody reads it{hint}", f"{FRONT}: correct or remove {key}"))
        del values[key]
    for change in find_changes(FRONT, "default"):
        if str(values.get(change.key)) in change.former:
            text = f"{values[change.key]}, now {change.value} by default. {change.text}"
            found.append(Finding(FRONT, change.key, "look", text))
    try:
        return parse_config(FrontSettings, values, FRONT), found
    except ConfigError as error:
        fault = str(error).removeprefix(f"{FRONT}: ")
        return None, [*found, Finding(FRONT, "values", "do", fault, f"{FRONT}: correct what is named above")]


def read_line(line: str) -> dict[str, object]:
    """Read a line that is added to front.yaml. Its values are JSON too."""
    key, _, value = line.partition(": ")
    return {key: orjson.loads(value)}


def _check_keys(running: Running, state: Path, front: FrontSettings | None) -> Iterator[Finding]:
    yield Finding(STATE, "key_file.json", "as is", "tokens are made anew at each start")
    try:
        for key_id in read_policy(running.config).keys or ():
            yield Finding(STATE, f"trusted key {key_id[:12]}", "as is", "its signatures stay valid")
    except ConfigError as error:
        yield Finding(STATE, "trusted keys", "do", str(error), "do what the line above says")
    former, now = running.checkout.resolve() / "front", state.resolve() / "front"
    if former != now and former.is_dir() and not now.exists():
        text = f"the front's folder is {now} now: without it, its clients have no keys"
        yield Finding(STATE, "front/", "do", text, shlex.join(["mv", str(former), str(now)]))
    clients = next((folder / "clients.map" for folder in (now, former) if folder.is_dir()), None)
    if running.front and front and front.clients:
        clients = running.front.resolve().parent / front.clients
    if clients is not None and clients.is_file():
        try:
            names = ClientKeys(clients).names()
            yield Finding(STATE, clients.name, "as is", f"clients whose keys stay valid: {len(names)}")
        except ConfigError as error:
            yield Finding(STATE, clients.name, "do", str(error), f"correct {clients}")


def _check_archives(running: Running, text: str) -> Iterator[Finding]:
    try:
        policy = read_policy(running.config)
    except ConfigError:
        return  # said of the keys
    recipes = find_recipes((*running.recipes, running.checkout / "recipes", running.checkout / "examples"))
    for name in map(file_name, list_entries(text, policy.store)):
        path = policy.store / name
        try:
            archive = check_served(name, policy)
        except ConfigError as error:
            todo = f"{name}: what is said above" if _is_whole(path) else rebuild(path, recipes)
            yield Finding(ARCHIVES, name, "do", _without(error, path), todo)
        else:
            yield _judge(archive, recipes)


def _judge(archive: Archive, recipes: Mapping[str, Path]) -> Finding:
    """Judge an archive that a start would give to TorchServe."""
    name = archive.path.name
    if not any(entry.startswith(OURS_WITHIN) for entry in archive.entries):
        return Finding(ARCHIVES, name, "as is", "another's, well-formed")
    if not archive.is_ours:
        text = f"served, but without {DIGESTS} nobody sees damage, and predict_images.py --archive may not read it"
        return Finding(ARCHIVES, name, "look", text, rebuild(archive.path, recipes))
    if GOLDEN not in archive.entries:
        return Finding(ARCHIVES, name, "look", "served, but without a golden prediction: its answers are not checked")
    built = read_builder(archive)
    return Finding(ARCHIVES, name, "as is", f"served by the code that it carries, of {built or 'a version not named'}")


def read_builder(archive: Archive) -> str | None:
    """Return the version of this project that packed it, as its bill of materials says."""
    if SBOM not in archive.entries:
        return None
    parts = orjson.loads(archive.read(SBOM)).get("components", ())
    return next((str(part["version"]) for part in parts if part.get("name") == PACKAGE), None)


def _is_whole(path: Path) -> bool:
    try:
        verify_archive(path)
    except ConfigError:
        return False
    return True


def _without(error: ConfigError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").removesuffix(f"; {BUILD_AGAIN}")


def _check_recipes(paths: list[Path]) -> Iterator[Finding]:
    if not paths:
        return
    from mar_tools.models.recipes import read_recipe  # imports PyTorch, which a check of a server does not need

    for path in paths:
        renamed = next(
            (change for change in find_changes(RECIPES, "renamed") if _has_line(path, change.former[0])), None
        )
        if renamed:
            todo = f"{path}: write {renamed.key} in place of {renamed.former[0]}"
            yield Finding(RECIPES, path.name, "do", f"{renamed.former[0]} is now {renamed.key}. {renamed.text}", todo)
            continue
        try:
            read_recipe(path, trust_remote_code=True)  # which runs nothing
        except ConfigError as error:
            yield Finding(RECIPES, path.name, "do", str(error).removeprefix(f"{path}: "), f"{path}: as said above")
        else:
            yield Finding(RECIPES, path.name, "as is", "a build takes it")


def _has_line(recipe: Path, line: str) -> bool:
    """Look for a key of a model's `output` with this value."""
    model = read_yaml(recipe).get("model")
    output = model.get("output") if isinstance(model, dict) else None
    key, _, value = line.partition(": ")
    return isinstance(output, dict) and output.get(key) == value


def list_recipes(folders: tuple[Path, ...]) -> list[Path]:
    """Return the files below these folders that begin as a recipe does."""
    paths = (path for folder in folders for path in sorted(folder.rglob("*.yaml")))
    return [path for path in paths if RECIPE_NAME.search(path.read_text(encoding="utf-8", errors="replace"))]


def find_recipes(folders: tuple[Path, ...]) -> dict[str, Path]:
    """Return recipes by the names of their models."""
    found: dict[str, Path] = {}
    for path in list_recipes(folders):
        name = RECIPE_NAME.search(path.read_text(encoding="utf-8", errors="replace"))
        found.setdefault(name[1] if name else path.stem, path)
    return found


def rebuild(path: Path, recipes: Mapping[str, Path]) -> str:
    """Return the command that builds an archive again; RECIPE stands for one that was not found."""
    try:
        model = open_archive(path).identity[0]
    except ConfigError:
        model = path.stem
    recipe = str(recipes.get(model, "RECIPE"))
    command = shlex.join(["python", "scripts/build_model.py", recipe, "--model-store", str(path.parent)])
    return command if model in recipes else f"{command}  # of {model}"
