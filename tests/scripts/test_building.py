from pathlib import Path

import orjson
import pytest
from conftest import MakeRecipe

from mar_tools import building
from mar_tools.building import Candidate, build_candidates, choose, write_candidates
from mar_tools.recipes import read_recipe


def candidate(verdict: str, images_per_s: float | None) -> Candidate:
    return Candidate("eager", "fp32", "folder", verdict, {}, images_per_s)


FAST, SLOW = candidate("verified", 20.0), candidate("verified", 10.0)
REJECTED, IMPOSSIBLE = candidate("rejected: snr_db 3", 90.0), candidate("not possible: no bf16", None)
UNTIMED = candidate("verified", None)


@pytest.mark.parametrize(
    ("built", "chosen"),
    [
        ([], None),
        ([REJECTED, IMPOSSIBLE], None),
        ([UNTIMED], UNTIMED),
        ([SLOW, REJECTED, FAST], FAST),
        ([IMPOSSIBLE, SLOW], SLOW),
    ],
    ids=["none", "none passed", "one, not timed", "the fastest that passed", "the only one that passed"],
)
def test_the_fastest_verified_candidate_is_chosen(built: list[Candidate], chosen: Candidate | None) -> None:
    assert choose(built) is chosen


def test_a_recipe_becomes_verified_and_timed_candidates(
    tiny_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "ROUND_S", 0.0)
    steps: list[str] = []
    recipe = read_recipe(tiny_recipe(precision="fp32"))
    built = build_candidates(recipe, tmp_path, steps.append)
    assert {(c.backend, c.precision, c.verdict) for c in built} >= {
        ("eager", "fp32", "verified"),
        ("openvino", "fp32", "verified"),
    }
    assert all(c.images_per_s for c in built if c.passed)
    assert steps[:2] == ["load the checkpoint", "export eager-fp32"]
    write_candidates(built, tmp_path / "candidates.json")
    assert len(orjson.loads((tmp_path / "candidates.json").read_bytes())) == len(built)


def test_a_single_candidate_is_not_timed(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = read_recipe(tiny_recipe(backend="eager", precision="fp32"))
    [built] = build_candidates(recipe, tmp_path, lambda step: None)
    assert (built.verdict, built.images_per_s) == ("verified", None)
