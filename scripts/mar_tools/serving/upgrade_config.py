"""What an upgrade has to change in config.properties, which is what a restart goes by."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mar_tools.serving.archive_choice import file_name, split_entries
from mar_tools.serving.config_file import model_section, rewrite, with_model, with_values, without_model
from mar_tools.serving.upgrading import Plan, Upgraded
from vision_serving.worker.server_settings import read_properties, read_text


@contextmanager
def lasting_properties(config: Path, plan: Plan) -> Iterator[None]:
    """Write them before the new version is loaded, as its workers read there how many threads are theirs.

    Undone when it fails.
    """
    former = read_text(config)
    rewrite(config, lambda text: name_version(text, plan))
    try:
        yield
    except BaseException:
        rewrite(config, lambda text: former)
        raise


def name_version(text: str, plan: Plan) -> str:
    """Return the new version in the place of the old one, in `models` and in a list of `load_models`."""
    section = model_section(text, plan.model, plan.old_version) | plan.section
    text = without_model(with_model(text, plan.model, plan.version, section), plan.model, plan.old_version)
    wanted = read_properties(text).get("load_models", "all")
    names = [  # an entry may be `name=file`
        name.removesuffix(plan.old_archive) + plan.archive.path.name if file_name(name) == plan.old_archive else name
        for name in split_entries(wanted)
    ]
    return text if wanted.lower() == "all" else with_values(text, {"load_models": ",".join(names)})


def advise(config: Path, done: Upgraded, written: bool) -> Iterator[str]:
    """Yield what is left to do for the upgrade to last."""
    plan = done.plan
    if not written:
        former = model_section(read_text(config), plan.model, plan.old_version)
        section = json.dumps({plan.version: former | plan.section})
        yield f"to make it last, {config.name} has to say of {plan.model} in `models`: {section}; or give --write"
    if read_properties(read_text(config)).get("load_models", "all").lower() == "all":
        yield f"a restart loads all of the model store: move {plan.old_archive} away, unless both should be served"
