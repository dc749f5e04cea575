"""Every peer that installs starts and answers rightly, alone and in batches: a comparison that nobody runs rots."""

from pathlib import Path

import pytest
import yaml

from lab.peers.contest import awake, start_contestants
from lab.peers.peers import PeerError, ServerSettings, find_peers, install_peer
from mar_tools.exporting.export import export_model
from mar_tools.load_testing.images import load_test_images
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe

RAYS_OWN_LIMIT = "node timed out during startup"  # of 30 s, which other tests on the same cores can use up
# Prepared as TorchServe's stock handler does it, which every other server can do too.
RECIPE = {
    "name": "small",
    "task": "classification",
    "model": {"source": "torchvision", "name": "shufflenet_v2_x0_5", "weights": "random"},
    "preprocessing": {"resize": {"mode": "shortest_edge", "size": 256}, "crop": [224, 224]},
}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier on OpenVINO, with its reference beside it."""
    folder = tmp_path_factory.mktemp("peers")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    recipe = read_recipe(path)
    checkpoint = load_checkpoint(recipe)
    for backend in ("eager", "openvino"):
        found = export_model(recipe, checkpoint, backend, "fp32", folder / "exports")
    return found


@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name, peer in find_peers().items() for mode in peer.file.modes]
)
def test_a_peer_answers_rightly(name: str, mode: str, export: Path) -> None:
    try:
        install_peer(find_peers()[name])
    except PeerError as error:
        pytest.skip(str(error))
    settings = ServerSettings(workers=1, threads=1, batch_size=4, batch_delay_ms=5)
    asked, images = f"{name}-{mode}", load_test_images(4)
    with start_contestants([asked], export, images, settings, lambda step: None) as (started, refused):
        if RAYS_OWN_LIMIT in refused.get(asked, ""):
            pytest.skip(refused[asked])
        assert not refused
        (contestant,) = started
        with awake(contestant):
            found = contestant.new_trial(4, 1.0).measure(0)
    assert (found.failed, found.wrong) == (0, 0)
    assert found.requests > 0
