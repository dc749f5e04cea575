"""B6 and B10 to B12: models that come, go and cannot load, a drained server, and a frontend that is killed."""

import random
import time

from lab.reliability.episodes import FaultRow, describe_failures
from lab.testbed.archives import BESIDE, BROKEN, REASON, SERVED
from lab.testbed.findings import Episode
from lab.testbed.traffic import Traffic
from lab.testbed.world import BATCH_DELAY_MS, BATCH_SIZE, WORKERS, World, good_asks
from mar_tools.load_testing.processes import find_processes
from mar_tools.serving.config_file import with_values
from mar_tools.serving.graceful_stop import stop_drained
from mar_tools.serving.health import check_server
from mar_tools.serving.ports import is_free
from mar_tools.serving.processes import wait_until_ended
from mar_tools.serving.scaling import scale
from mar_tools.serving.temporary_server import START_TIMEOUT_S
from mar_tools.serving.torchserve_api import ServerError
from vision_serving.worker.server_settings import read_properties

CALM_S = 1.0
WORKERS_GONE_S = 5.0
READY_S = 60.0
TOLD_S = 5.0
DRAIN_S, STOP_S = 10.0, 10.0  # how long it may refuse, and how much longer it may take to end
REFUSALS = ("ClientConnectorError", "DrainingError")  # nobody listens, or a 503 says so: a client may ask elsewhere


def start_beside_broken(world: World, choose: random.Random) -> Episode:
    """Start again with an archive that cannot load beside the one that can."""
    link = world.server.model_store() / world.archives.broken.name
    former = world.server.config.read_text(encoding="utf-8")
    loaded = read_properties(former)["load_models"]
    episode = Episode(patience=world.patience)
    world.server.stop()
    try:
        link.symlink_to(world.archives.broken)
        both = with_values(former, {"load_models": f"{loaded},{link.name}"})
        world.server.config.write_text(both, encoding="utf-8")
        watch_broken(episode, world, choose)
        world.server.client.unregister(BROKEN, None)
    finally:
        link.unlink(missing_ok=True)
        world.server.config.write_text(former, encoding="utf-8")
    return episode


def watch_broken(episode: Episode, world: World, choose: random.Random) -> None:
    """Watch what the start says of it, then readiness, asked under traffic for the other one."""
    warnings: list[str] = []
    begun = time.perf_counter()
    world.server.start(START_TIMEOUT_S, lambda step: None, warnings.append)
    episode.figures["started_s"] = round(time.perf_counter() - begun, 1)
    said = "; ".join(warnings)
    episode.require(BROKEN in said and REASON in said, f"the start does not say which cannot load, and why: {said}")
    with world.traffic(choose.randrange(1 << 32)) as traffic:
        asked = time.perf_counter()
        found = {health.model: health for health in check_server(world.server.config, time.monotonic() + READY_S)}
        episode.bound_time("told_by_readiness_s", time.perf_counter() - asked, TOLD_S)
        time.sleep(3 * CALM_S)
    broken = found.get(BROKEN)
    told = (broken and broken.problem) or ""
    episode.require(REASON in told, f"readiness does not say which cannot load, and why: {told}")
    episode.require(SERVED in found and found[SERVED].healthy, f"the other one is not healthy: {found.get(SERVED)}")
    note_failures(episode, traffic, asked)


def note_failures(episode: Episode, traffic: Traffic, fault: float) -> None:
    failed = [exchange for exchange in traffic.exchanges if exchange.problem]
    episode.figures["requests"] = len(traffic.exchanges)
    episode.failures += describe_failures(failed, fault)
    episode.bound("failed", len(failed), 0)


def drain_and_stop(world: World, choose: random.Random) -> Episode:
    """Drain while clients go on asking. Earlier ones are answered; then each is refused; then nothing is left."""
    episode = Episode(patience=world.patience)
    family, temporary = find_processes([world.frontend().pid]), world.server.temporary
    ports = world.server.ports()
    with world.traffic(choose.randrange(1 << 32)) as traffic:
        time.sleep(CALM_S)
        fault = time.perf_counter()
        try:
            stop_drained(world.server, DRAIN_S, lambda step: None)
        except ServerError as error:
            episode.problems.append(str(error))
        stopped_s = time.perf_counter() - fault
        time.sleep(CALM_S)
    later = [entry for entry in traffic.exchanges if entry.due > fault]
    refused = [entry for entry in later if any(refusal in entry.problem for refusal in REFUSALS)]
    failed = [entry for entry in traffic.exchanges if entry.problem and entry not in refused]
    episode.figures.update({"requests": len(traffic.exchanges), "refused_from_then_on": len(refused)})
    episode.failures += describe_failures(failed, fault)
    episode.bound("failed", len(failed), 0)
    episode.bound_time("stopped_s", stopped_s, DRAIN_S + STOP_S)
    orphans = wait_until_ended(family, 1.0)
    episode.bound("orphans", len(orphans), 0)
    episode.bound("ports_taken", sum(not is_free(port) for port in ports.values()), 0)
    episode.bound("folders_left", int(temporary.exists()), 0)
    world.restart()
    return episode


def manage_models(world: World, choose: random.Random) -> Episode:
    """Manage another model: it comes, is asked, scaled and goes; the one that is asked all the time is scaled too."""
    client = world.server.client
    beside = good_asks(world.archives.export, BESIDE)
    with world.traffic(choose.randrange(1 << 32)) as traffic:
        time.sleep(CALM_S)
        fault = time.perf_counter()
        client.register(world.archives.beside.name, 1, BATCH_SIZE, BATCH_DELAY_MS)
        for ask in beside:
            traffic.insert(ask)
        for model, workers in ((BESIDE, 2), (SERVED, WORKERS + 1), (SERVED, WORKERS), (BESIDE, 1)):
            scale(client, world.server.config, model, None, workers)
        time.sleep(CALM_S)
        client.unregister(BESIDE, None)
        time.sleep(CALM_S)
    episode = Episode(patience=world.patience, figures={"seconds": round(time.perf_counter() - fault, 1)})
    asked = [exchange for exchange in traffic.exchanges if exchange.ask.path.endswith(BESIDE)]
    episode.require(len(asked) == len(beside), f"{len(asked)} requests went to the other model, not {len(beside)}")
    note_failures(episode, traffic, fault)
    return episode


def kill_the_frontend(world: World, choose: random.Random) -> Episode:
    """Kill it, and start it again as an operator would: with new tokens, which the traffic afterwards has."""
    frontend, temporary = world.frontend(), world.server.temporary
    workers = frontend.children(recursive=True)
    episode = Episode(patience=world.patience, figures={"workers": len(workers)})
    with world.traffic(choose.randrange(1 << 32)) as traffic:
        time.sleep(CALM_S + choose.random())
        fault = time.perf_counter()
        frontend.kill()
        left = wait_until_ended(workers, 3 * WORKERS_GONE_S)
        episode.bound_time("workers_gone_s", None if left else time.perf_counter() - fault, WORKERS_GONE_S)
    begun, started = time.time(), time.perf_counter()
    world.server.start(2 * READY_S, lambda step: None)
    episode.bound_time("ready_s", time.perf_counter() - started, READY_S)
    older = [path for path in temporary.rglob("*") if not path.is_dir() and path.lstat().st_mtime < begun]
    episode.bound("left_over", len(older), 0)
    with world.traffic(choose.randrange(1 << 32)) as afterwards:
        time.sleep(2 * CALM_S)
    failed = [exchange for exchange in traffic.exchanges if exchange.problem]
    failed_later = [exchange for exchange in afterwards.exchanges if exchange.problem]
    episode.failures += describe_failures(failed, fault)
    episode.failures += [f"after the start: {line}" for line in describe_failures(failed_later, started)]
    episode.figures["failed_while_it_was_gone"] = len(failed)
    episode.bound("wrong", sum(exchange.is_wrong for exchange in failed), 0)
    episode.bound("failed_after_the_start", len(failed_later), 0)
    return episode


AS_BEFORE = "no request fails"

ROWS = (
    FaultRow(
        "B6",
        "an archive that cannot load beside one that can",
        f"the start and, within {TOLD_S:g} s, readiness name it with the reason; the other one answers all",
        start_beside_broken,
    ),
    FaultRow(
        "B10",
        "drain and stop",
        "no request that was sent before fails, later ones are refused at most (503, or no connection); it ends "
        f"within {DRAIN_S + STOP_S:g} s though clients go on asking; no process, port or folder is left",
        drain_and_stop,
    ),
    FaultRow("B11", "register, scale and unregister", AS_BEFORE, manage_models),
    FaultRow(
        "B12",
        "`kill -9` of the frontend, and a new start",
        f"its workers gone in {WORKERS_GONE_S:g} s, ready {READY_S:g} s after the start, nothing left of before",
        kill_the_frontend,
    ),
)
