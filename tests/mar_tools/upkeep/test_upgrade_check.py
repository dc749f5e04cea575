"""What `upgrade_project.py --check` says is what a start does, before and after that is done."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from archives_of_0_1 import KINDS, OF_0_1, pack
from conftest import MakeRecipe, RunHere

from mar_tools.archives.policy import check_served, read_policy
from mar_tools.command_line import HANDLERS, ROOT
from mar_tools.front.client_keys import ClientKeys
from mar_tools.front.settings import FrontSettings
from mar_tools.models.recipes import read_recipe
from mar_tools.serving.archive_choice import read_checked
from mar_tools.serving.memory_bounds import read_bounds
from mar_tools.upkeep.changes import CHANGES, VERSION, Change, describe_changes, find_changes
from mar_tools.upkeep.upgrade_check import read_line
from vision_serving.config import ImageLimits
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config, read_yaml
from vision_serving.worker.server_settings import read_properties, read_text

Findings = list[dict[str, Any]]
YOLO = """
name: yolo
task: detection
model:
  source: onnx
  file: yolo.onnx
  output: {format: yolo, layout: rows, objectness: false, boxes: xywh}
labels: labels.json
preprocessing: {resize: {mode: exact, size: [64, 64]}}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of 0.1 that serves, with a front of one client."""
    folder = tmp_path / "vision"
    (folder / "deploy" / "nginx").mkdir(parents=True)
    (folder / "front").mkdir()
    (folder / "model_store").mkdir()
    shutil.copy(OF_0_1 / "served" / "config.properties", folder)
    shutil.copy(OF_0_1 / "served" / "front.yaml", folder / "deploy" / "nginx")
    ClientKeys(folder / "front" / "clients.map").add("camera-7")
    return folder


def check(run_here: RunHere, checkout: Path, *options: object) -> tuple[int, Findings]:
    done = run_here("upgrade_project.py", "--check", "--from", checkout, "--json", *options)
    return done.returncode, json.loads(done.stdout)["findings"]


def of(findings: Findings, place: str) -> dict[str, tuple[str, str, str]]:
    return {one["name"]: (one["verdict"], one["text"], one["todo"]) for one in findings if one["place"] == place}


@pytest.mark.parametrize("kind", KINDS)
def test_a_front_yaml_of_0_1_is_refused_until_what_is_said_is_done(
    kind: str, checkout: Path, run_here: RunHere
) -> None:
    file = checkout / "deploy" / "nginx" / "front.yaml"
    shutil.copy(OF_0_1 / kind / "front.yaml", file)
    with pytest.raises(ConfigError):
        parse_config(FrontSettings, read_yaml(file), "front.yaml")

    status, findings = check(run_here, checkout)
    todo = [one["todo"] for one in findings if one["place"] == "front.yaml" and one["verdict"] == "do"]
    assert status == 1
    text = file.read_text()
    for line in todo:
        if added := re.fullmatch(r"front\.yaml: add (.+)", line):
            text += added[1] + "\n"
        elif renamed := re.fullmatch(r"front\.yaml: rename (\w+) to (\w+)", line):
            text = text.replace(f"{renamed[1]}:", f"{renamed[2]}:")
        else:
            raise AssertionError(line)
    file.write_text(text)
    parse_config(FrontSettings, read_yaml(file), "front.yaml")
    status, findings = check(run_here, checkout)
    assert (status, [one for one in findings if one["verdict"] == "do"]) == (0, [])


def test_the_lines_that_are_added_keep_what_our_own_file_has() -> None:
    ours = yaml.safe_load((ROOT / "deploy/nginx/front.yaml").read_text())
    for change in find_changes("front.yaml", "needed"):
        assert read_line(change.line) == {change.key: ours[change.key]}
    for change in find_changes("front.yaml", "default"):
        assert read_line(change.line) == {change.key: ours[change.key]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_of_0_1_is_taken_as_it_is(kind: str, checkout: Path, run_here: RunHere) -> None:
    config = OF_0_1 / kind / "config.properties"
    read_checked(config)
    read_bounds(read_properties(read_text(config)))
    shutil.copy(config, checkout)
    _, findings = check(run_here, checkout)
    assert "do" not in {verdict for verdict, _, _ in of(findings, "config.properties").values()}


def test_parts_of_vmargs_that_an_early_config_lacks_are_those_of_ours(checkout: Path, run_here: RunHere) -> None:
    shutil.copy(OF_0_1 / "without_digests" / "config.properties", checkout)
    _, findings = check(run_here, checkout)
    told = [one["text"].partition(": ")[0] for one in findings if one["name"] == "vmargs"]
    ours = read_properties(read_text(ROOT / "config.properties"))["vmargs"].split()
    theirs = read_properties(read_text(checkout / "config.properties"))["vmargs"].split()
    assert told == [part for part in ours if part in told]
    assert told
    assert not set(told) & set(theirs)


@pytest.mark.parametrize(
    ("line", "name"),
    [("metric_port=8083", "metric_port"), ("job_queue_size=many", "job_queue_size"), ("vision_logs=xml", "settings")],
)
def test_what_a_start_refuses_of_a_config_is_said(line: str, name: str, checkout: Path, run_here: RunHere) -> None:
    config = checkout / "config.properties"
    config.write_text(re.sub(r"(?m)^job_queue_size=.*$", "", config.read_text()) + f"\n{line}\n")
    with pytest.raises(ConfigError) as refused:
        read_checked(config)
    status, findings = check(run_here, checkout)
    verdict, text, _ = of(findings, "config.properties")[name]
    assert (status, verdict, str(refused.value)) == (1, "do", f"config.properties: {text}")


def test_the_front_s_folder_is_moved_by_the_command_and_its_client_keeps_the_key(
    checkout: Path, tmp_path: Path, run_here: RunHere
) -> None:
    (checkout / "config.properties").write_text(f"vision_state={tmp_path}/state\nload_models=none.mar\n")
    (tmp_path / "state").mkdir()
    _, findings = check(run_here, checkout)
    subprocess.run(shlex.split(of(findings, "the state folder")["front/"][2]), check=True)
    assert ClientKeys(tmp_path / "state" / "front" / "clients.map").names() == ["camera-7"]
    _, findings = check(run_here, checkout, "--front", checkout / "deploy" / "nginx" / "front.yaml")
    found = of(findings, "the state folder")
    assert "front/" not in found
    assert found["clients.map"][:2] == ("as is", "clients whose keys stay valid: 1")


@pytest.fixture
def handlers() -> dict[str, bytes]:
    """Those of today: what is decided here does not depend on the code that an archive carries."""
    files = (path for path in HANDLERS.rglob("*.py"))
    return {path.relative_to(HANDLERS).as_posix(): path.read_bytes() for path in files}


def test_each_archive_of_0_1_is_judged_as_a_start_judges_it(
    checkout: Path, handlers: dict[str, bytes], run_here: RunHere
) -> None:
    policy = read_policy(checkout / "config.properties")
    for kind in KINDS:
        pack(kind, handlers, checkout / "model_store" / f"{kind}.mar")
    check_served("served.mar", policy)
    check_served("without_digests.mar", policy)
    with pytest.raises(ConfigError, match=r"another version of this project; .*python scripts/build_model\.py RECIPE"):
        check_served("refused.mar", policy)
    status, findings = check(run_here, checkout)
    verdicts = {name: verdict for name, (verdict, _, _) in of(findings, "archives").items()}
    assert (status, verdicts) == (1, {"served.mar": "as is", "without_digests.mar": "look", "refused.mar": "do"})
    assert "of 0.1.0" in of(findings, "archives")["served.mar"][1]


def test_predicting_without_a_server_refuses_an_early_one_and_names_the_command(
    tmp_path: Path, handlers: dict[str, bytes], run_here: RunHere
) -> None:
    archive = pack("without_digests", handlers, tmp_path / "early.mar")
    done = run_here(
        "predict_images.py", "--archive", archive, ROOT / "examples/digits_classification/samples/seven.png"
    )
    assert done.returncode == 1
    assert re.search(r"early\.mar: .*'network\.output\.boxes'.*python scripts/build_model\.py RECIPE", done.stderr)


def test_where_only_ours_are_served_the_command_for_one_without_digests_is_named(
    checkout: Path, handlers: dict[str, bytes], run_here: RunHere
) -> None:
    with (checkout / "config.properties").open("a") as config:
        config.write("vision_archives=ours\n")
    pack("without_digests", handlers, checkout / "model_store" / "early.mar")
    with pytest.raises(ConfigError, match=r"python scripts/build_model\.py RECIPE"):
        check_served("early.mar", read_policy(checkout / "config.properties"))
    status, findings = check(run_here, checkout)
    verdict, _, todo = of(findings, "archives")["early.mar"]
    store = (checkout / "model_store").resolve()
    expected = f"python scripts/build_model.py RECIPE --model-store {store}  # of early"
    assert (status, verdict, todo) == (1, "do", expected)


def test_the_command_that_is_named_builds_the_archive_again(
    checkout: Path, handlers: dict[str, bytes], tiny_recipe: MakeRecipe, run_here: RunHere, tmp_path: Path
) -> None:
    recipe = tiny_recipe("classification", name="refused", backend="eager", precision="fp32")
    pack("refused", handlers, checkout / "model_store" / "refused.mar")
    recipes = ("--recipes", recipe.parent)
    _, findings = check(run_here, checkout, *recipes)
    python, script, *arguments = shlex.split(of(findings, "archives")["refused.mar"][2])
    assert (python, script, arguments[0]) == ("python", "scripts/build_model.py", str(recipe))
    built = run_here("build_model.py", *arguments, "--exports", tmp_path / "exports")
    assert built.returncode == 0, built.stderr
    _, findings = check(run_here, checkout, *recipes)
    assert of(findings, "archives")["refused.mar"][0] == "as is"


@pytest.mark.parametrize("change", find_changes("recipes", "renamed"), ids=lambda change: change.key)
def test_a_recipe_with_an_earlier_key_is_refused_until_the_line_is_written(
    change: Change, checkout: Path, run_here: RunHere
) -> None:
    recipes = checkout / "own"
    recipes.mkdir()
    recipe = recipes / "yolo.yaml"
    recipe.write_text(YOLO.replace("boxes: xywh", change.former[0]))
    with pytest.raises(ConfigError, match="boxes"):
        read_recipe(recipe)
    status, findings = check(run_here, checkout, "--recipes", recipes)
    assert (status, of(findings, "recipes")["yolo.yaml"][0]) == (1, "do")
    _, _, todo = of(findings, "recipes")["yolo.yaml"]
    said = re.fullmatch(r".*: write (.+) in place of (.+)", todo)
    assert said
    recipe.write_text(recipe.read_text().replace(said[2], said[1]))
    read_recipe(recipe)
    status, findings = check(run_here, checkout, "--recipes", recipes)
    assert of(findings, "recipes")["yolo.yaml"][0] == "as is"


def test_the_limits_of_a_build_are_those_that_are_said_and_archives_of_early_0_1_lack_them() -> None:
    (limits,) = (change.text for change in find_changes("recipes", "fact"))
    said = {key: float(value) for key, value in re.findall(r"`(\w+): ([\d.]+)`", limits)}
    now = ImageLimits().model_dump()
    assert said == {key: now[key] for key in said}
    assert "AVIF" in now["formats"]
    then = yaml.safe_load((OF_0_1 / "without_digests" / "model-config.yaml").read_text())["handler"]["limits"]
    assert not said.keys() & then.keys()
    assert "AVIF" not in then["formats"]


def test_the_table_fits_80_columns(checkout: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copy(OF_0_1 / "refused" / "front.yaml", checkout / "deploy" / "nginx")
    done = run_here("upgrade_project.py", "--check", "--from", checkout)
    table, _, todo = done.stdout.partition("\nTo do:\n")
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "  front.yaml: rename explanations_of_a_client to costly_of_a_client\n" in todo


def test_our_own_settings_need_nothing(run_here: RunHere) -> None:
    done = run_here("upgrade_project.py", "--check", "--front", ROOT / "deploy/nginx/front.yaml", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert [one for one in findings if one["place"] != "archives" and one["verdict"] != "as is"] == []


def test_the_changelog_says_the_same_as_the_command() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    section = changelog.partition("### Upgrading\n")[2].partition("\n###")[0]
    items = [" ".join(item.split()) for item in re.findall(r"(?ms)^- (.*?)(?=^- |\Z)", section)]
    assert items == list(describe_changes())


def test_each_new_setting_is_one_that_a_start_takes() -> None:
    for change in CHANGES:
        if change.kind == "new":
            assert change.key in (ROOT / "config.properties").read_text()


def test_the_version_is_the_same_everywhere() -> None:
    for file in ("pyproject.toml", "client/pyproject.toml", "lab/pyproject.toml"):
        assert re.findall(r'(?m)^version = "(.+)"$', (ROOT / file).read_text()) == [VERSION], file
    described = yaml.safe_load((ROOT / "docs/use/openapi.yaml").read_text())
    assert described["info"]["version"] == VERSION
    assert re.findall(r"(?m)^## (\S+) — \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text())[0] == VERSION
    manifests = [*(ROOT / "deploy").rglob("*.yaml"), ROOT / "docs/operate/kubernetes.md"]
    tag = r"(?:vision-(?:serving|front):|newTag: \")(\d[\w.]*)"
    tags = {path.relative_to(ROOT).as_posix(): set(re.findall(tag, path.read_text())) for path in manifests}
    assert {name: found for name, found in tags.items() if found - {VERSION}} == {}
    assert tags["docs/operate/kubernetes.md"] == tags["deploy/kubernetes/cpu/kustomization.yaml"] == {VERSION}


def test_a_server_or_recipes_that_are_not_there_are_told(checkout: Path, run_here: RunHere) -> None:
    (checkout / "config.properties").unlink()
    done = run_here("upgrade_project.py", "--check", "--from", checkout)
    assert done.returncode == 1
    assert f"{checkout / 'config.properties'}: no such file; give --config with the server's" in done.stderr
    for option, given, what in (
        ("--from", checkout / "none", "not there"),
        ("--recipes", checkout / "deploy" / "nginx" / "front.yaml", "a file"),
    ):
        done = run_here("upgrade_project.py", "--check", option, given)
        assert done.returncode == 2
        assert f"argument {option}: expected a folder, got '{given}', which is {what}" in done.stderr
