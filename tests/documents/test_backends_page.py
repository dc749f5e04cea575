"""Pages that say something of each backend name each, as the tables of the code have them."""

import re

import pytest
from markdown_pages import ROOT, read_page

from mar_tools.exporting.exporters import EXPORTERS
from vision_serving.backends import BACKENDS
from vision_serving.source_constants import read_constant

# The text that lists them, in a page. What is not known of one is said there too.
LISTS = {
    "docs/understand/backends.md": r"^\| backend \| artifact \|.*?\n\n",
    "docs/operate/archives.md": r"^\| same bytes \|.*?^##",
    "SECURITY.md": r"^\| code in an artifact \|.*?\n",
}


def read_list(page: str) -> str:
    found = re.search(LISTS[page], read_page(page), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no list of backends that begins so"
    return found.group(0)


@pytest.mark.parametrize("page", LISTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_page_that_says_something_of_each_backend_names_it(backend: str, page: str) -> None:
    assert f"`{backend}`" in read_list(page)


def test_the_page_says_which_backends_run_onnx_files_in_which_precisions() -> None:
    exporters = ROOT / "scripts" / "mar_tools" / "exporting" / "exporters"
    running = {name: read_constant(exporters / f"{name}.py", "ONNX_PRECISIONS") for name in EXPORTERS}
    running.pop("eager")  # which runs the file as the reference
    [paragraph] = re.findall(r"^The reference of an ONNX file is.*?\n\n", read_page("docs/use/recipes.md"), re.M | re.S)
    stated = dict(re.findall(r"`(\w+)` \(([\w, ]+)\)", " ".join(paragraph.split())))
    assert stated == {name: ", ".join(precisions) for name, precisions in running.items() if precisions}
