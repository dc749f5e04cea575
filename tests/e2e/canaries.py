"""Archives that sing: their handler writes a file as soon as it is imported."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

HANDLER = '''from pathlib import Path

Path({witness!r}).touch()


class Canary:
    def initialize(self, context):
        """There is nothing to load."""

    def handle(self, data, context):
        return ["sung"] * len(data)
'''
MODEL = {
    "createdOn": "01/01/2026 00:00:00",
    "runtime": "python",
    "archiverVersion": "0.12.0",
    "model": {"modelName": "canary", "modelVersion": "1.0", "handler": "canary.py"},
}
WORKFLOW = {
    "createdOn": "01/01/2026 00:00:00",
    "archiverVersion": "0.2.12",
    "workflow": {"workflowName": "canary", "handler": "canary.py", "specFile": "workflow.yaml"},
}
# A node that is not a model is a function of the workflow's own handler: TorchServe imports it for that.
SPECIFICATION = "models:\n  min-workers: 1\n  max-workers: 1\ndag:\n  sing: []\n"


@dataclass(frozen=True)
class Canaries:
    """In one folder: `canary.mar`, `canary.war`, and both unpacked as `unpacked/` and `workflow/`."""

    folder: Path

    @property
    def witness(self) -> Path:
        """Exists when code of a canary ran."""
        return self.folder / "witness"

    @property
    def archive(self) -> Path:
        return self.folder / "canary.mar"

    @property
    def workflow(self) -> Path:
        return self.folder / "canary.war"

    @property
    def unpacked(self) -> Path:
        return self.folder / "unpacked"


def build_canaries(folder: Path) -> Canaries:
    """In a new `folder`."""
    folder.mkdir()
    canaries = Canaries(folder)
    handler = HANDLER.format(witness=str(canaries.witness))
    model = {"MAR-INF/MANIFEST.json": json.dumps(MODEL), "canary.py": handler}
    workflow = {"WAR-INF/MANIFEST.json": json.dumps(WORKFLOW), "canary.py": handler, "workflow.yaml": SPECIFICATION}
    for path, unpacked, files in (
        (canaries.archive, canaries.unpacked, model),
        (canaries.workflow, folder / "workflow", workflow),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(unpacked)
    return canaries
