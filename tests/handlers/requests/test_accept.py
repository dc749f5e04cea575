import pytest

from vision_serving.requests.accept import JSON_TYPE, choose_media_type

PNG, JPEG = "image/png", "image/jpeg"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON_TYPE),
        ("*/*", JSON_TYPE),
        ("application/json", JSON_TYPE),
        ("application/*", JSON_TYPE),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("image/jpeg", JPEG),
        ("image/*", PNG),
        (" image/png ; q=0.5 , */*;q=0.1", PNG),
        ("image/png;q=0.5, image/jpeg;q=0.6", JPEG),
        ("image/png;q=0.4, application/json", JSON_TYPE),
        ("application/json;q=0.4, image/png;q=0.5", PNG),
        ("image/png; foo=bar; q=0.2, image/jpeg;q=0.1", PNG),
    ],
)
def test_the_highest_weight_wins(accept: str, chosen: str) -> None:
    assert choose_media_type(accept) == chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("image/png, image/jpeg", PNG),
        ("image/jpeg, image/png", JPEG),
        ("image/png, application/json", PNG),
        ("application/json, image/png", JSON_TYPE),
        ("image/jpeg, */*", JPEG),
        ("*/*, image/jpeg", JPEG),
        ("image/*, */*", PNG),
    ],
)
def test_of_equal_weights_the_most_precise_wins_then_the_first(accept: str, chosen: str) -> None:
    assert choose_media_type(accept) == chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("image/*, image/png;q=0", JPEG),
        ("image/*, image/png;q=0.1", JPEG),
        ("*/*, application/json;q=0", PNG),
        ("*/*;q=0.1, application/json;q=0, image/png;q=0", JPEG),
    ],
)
def test_a_more_precise_range_decides_for_its_type(accept: str, chosen: str) -> None:
    assert choose_media_type(accept) == chosen


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "image/webp, image/avif",
        "image/png;q=0",
        "image/png;q=0.0",
        "*/*;q=0",
        "image/png;q=2",
        "image/png;q=-1",
        "image/png;q=nan",
        "image/png;q=",
        "image/png;q=0,5",
        "png",
        "image",
        "/",
        ",,;;q=,",
        "image/png" * 1000,
    ],
)
def test_json_is_given_where_nothing_fits(accept: str) -> None:
    assert choose_media_type(accept) == JSON_TYPE


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", JSON_TYPE),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", PNG),
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", PNG),
    ],
    ids=["a page in a browser", "<img> in Chrome", "<img> in Firefox"],
)
def test_browsers_get_what_they_show(accept: str, chosen: str) -> None:
    assert choose_media_type(accept) == chosen
