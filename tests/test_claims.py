"""Every quantitative claim of the prose has a source, and the sources say so."""

import copy
import re

import claims
import pytest

CLAIMS = claims.read_claims()
SOURCES = ("file", "cell", "text", "cite", "because")
BIBLIOGRAPHY = re.findall(
    r"^@\w+\{(\w+),", (claims.ROOT / "book" / "references.bib").read_text("utf-8"), re.MULTILINE
)


def names(claim) -> str:
    return f"{claims.places(claim)[0]}: {claim['says']}"


def test_each_number_of_the_prose_has_an_entry() -> None:
    assert claims.missing(CLAIMS) == [], "add them to book/claims.yml"


def test_each_quotation_stands_in_the_prose() -> None:
    assert claims.not_said(CLAIMS) == [], "correct them in book/claims.yml"


@pytest.mark.parametrize("claim", CLAIMS, ids=names)
def test_the_source_says_so(claim) -> None:
    kind = [source for source in SOURCES if source in claim]
    assert len(kind) == 1
    if "cite" in claim:
        assert claim["cite"] in BIBLIOGRAPHY
    elif "cell" in claim:
        assert claim["shows"] in claims.cell_text(claim["cell"])
    elif "text" in claim:
        assert claim["shows"] in (claims.ROOT / claim["text"]).read_text(encoding="utf-8")
    elif claim.get("file") == claims.TIMES and claims.read_value(claims.TIMES, "note"):
        # Times of a busy machine prove nothing; they must be there all the same.
        assert claims.value_of(claim)
    elif "file" in claim:
        assert claims.holds(claim), claims.value_of(claim)


def test_the_page_is_up_to_date() -> None:
    page = claims.PAGE.read_text(encoding="utf-8")
    assert claims.render(page, CLAIMS) == page, "make claims"


# The rules themselves


@pytest.mark.parametrize(
    "text",
    [
        "It gains 1.32 dB.",
        "More than a decibel.",
        "half a decibel",
        "after 7,000 steps",
        "about 40 minutes",
        "It takes 6 GB.",
        "twelve times as much",
        "two fifths of it",
        "53 images",
        "a factor of 36",
        "2.2 % of it",
        "1.5 million parameters",
    ],
)
def test_a_claim_is_found(text: str) -> None:
    assert len(claims.found(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "crops of 96 × 96 pixels",
        "made four times smaller",
        "two images",
        "section 3.4, in 2017",
        "a 3 × 3 convolution",
        "the first of three",
    ],
)
def test_what_is_no_claim_is_left_alone(text: str) -> None:
    assert claims.found(text) == []


def test_predictions_code_and_formulas_are_no_prose() -> None:
    text = (
        "A\n```{admonition} Predict\n:class: predict\n10 dB or 20 dB?\n```\nB `3 dB` $4 dB$ C 5 dB"
    )
    assert claims.plain(claims.strip(text)) == "A B C 5 dB"


def test_a_changed_number_is_noticed() -> None:
    changed = copy.deepcopy(CLAIMS)
    entry = next(claim for claim in changed if claim["says"] == "took 57 minutes")
    entry["says"] = "took 58 minutes"
    assert len(claims.missing(changed)) == len(claims.not_said(changed)) == 1


def test_a_changed_result_is_noticed() -> None:
    entry = next(claim for claim in CLAIMS if claim.get("is") == 0.91)
    assert claims.holds(entry) and not claims.holds(entry | {"is": 0.92})
    assert not claims.holds(entry | {"path": "methods.srcnn.mean.psnr"})


def test_paths_take_keys_with_a_point_and_means() -> None:
    data = {"lab_0": {"a": [5]}, "lab_0.5": {"a": [1, 3]}, "mean": {"a": [7]}}
    assert claims.step_into(data, "lab_0.5.a.mean") == 2
    assert claims.step_into(data, "lab_0.a.0") == 5
    assert claims.step_into(data, "mean.a.mean") == 7
    assert claims.step_into(data, "*.a.mean") == [5, 2, 7]
    with pytest.raises(KeyError):
        claims.step_into(data, "lab_1.a")
