"""Each number on a page agrees with the committed rows: the tests find every such sentence and compute its number again."""

import itertools
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch

import stn
from stn.io.images import MAX_PIXELS
from stn.models import cards
from stn.models.reading import WIDE
from stn.transforms import FAMILIES
from tests.rows import (
    ROOT,
    both_found,
    boxes_of_birds,
    changed,
    costs,
    errors,
    fewer,
    first_call,
    found,
    from_rows,
    kornias,
    looks_at_birds,
    minutes_of_training,
    missed,
    moved_by_the_identity,
    option_costs,
    overlaps,
    reach,
    recovered,
    refined,
    registered,
    row_of,
    seeds_better,
    shrunk,
    speedup,
    worst,
)

DIGIT = "1x1x28x28 affine"


def card_error(name: str) -> tuple[float, float]:
    """Return the test error of the weights in the package and its spread over draws, from their card."""
    card = cards()[name]
    spread = re.search(r"spread ([\d.]+) %", card.test)
    assert spread
    return card.error_percent, float(spread[1])


Numbers = Callable[[], tuple[float, ...]]
# page -> pattern with a group for each number, and the numbers from the rows. A space also matches a line break of the page.
CHECKED: dict[str, dict[str, Numbers]] = {
    "README.md": {
        r"\| (\d+) families, from translation": lambda: (len(FAMILIES),),
        r"seven shapes from digits to volumes \| 1x \| ([\d.]+)x \| ([\d.]+)x": lambda: (kornias(), speedup("forward")),
        r"one 28x28 image \| 1x \| ([\d.]+)x \| ([\d.]+)x": lambda: (
            kornias("small", DIGIT),
            speedup("forward", "small", DIGIT),
        ),
        r"([\d.]+) times as fast as PyTorch forward, ([\d.]+) times with theta's gradient, and ([\d.]+) times with both": (
            lambda: (speedup("forward"), speedup("theta"), speedup("both"))
        ),
        r"forward is ([\d.]+) times as fast, with both gradients ([\d.]+) times": lambda: (
            speedup("forward", "small"),
            speedup("both", "small"),
        ),
        r"once: (\d+) s forward and (\d+) s backward": lambda: (first_call("forward"), first_call("backward")),
        r"resize to within (\d) % of the range \(RMS\)": lambda: (max(shrunk(True)),),
        r"at ([\d.]+) to ([\d.]+) times the cost of plain sampling": lambda: (
            min(costs("antialias=True")),
            max(costs("antialias=True")),
        ),
        r"\[(\d+) pixels away instead of (\d+)\]": lambda: (reach("wide"), reach("plain")),
        r"pairs of MR volumes: Dice ([\d.]+) in pairs, ([\d.]+) by a trained network, ([\d.]+) before": lambda: (
            overlaps("velocity")[0],
            overlaps("learned")[0],
            overlaps("centers")[0],
        ),
        r"100 images share, without labels: (\d+) % alone, (\d+) % in clutter": lambda: (
            found("translated"),
            found("cluttered"),
        ),
        r"the value is within (\S+) of float64, PyTorch's within (\d\S+\d)": lambda: (
            worst("stn_value"),
            worst("torch_value"),
        ),
        r"float32 \| (\S+) \| as PyTorch \| (\S+) \|": lambda: (worst("torch_value"), worst("stn_value")),
        r"normal noise: largest error \| (\S+) \| as PyTorch \| (\d) \|": moved_by_the_identity,
        r"(\d) of (\d) seeds: ": seeds_better,
        r"seeds: (\d+) to (\d+) % fewer errors": lambda: (fewer("r"), fewer("rts")),
        r"([\d.]+) % errors in four steps, ([\d.]+) % with": lambda: (
            errors("alignment", "ic-stn-4/28"),
            errors("alignment", "st-cnn/28"),
        ),
        r"([\d.]+) % misread with four layers, ([\d.]+) % without": lambda: (
            errors("strings", "st-cnn-multi/64"),
            errors("strings", "cnn/64"),
        ),
        r"signs: ([\d.]+) % misread with one layer, ([\d.]+) % without": lambda: (
            errors("gtsrb", "st-cnn-single/32"),
            errors("gtsrb", "cnn/32"),
        ),
        r"([\d.]+) % misread, ([\d.]+) % without the rectifier": lambda: (
            errors("text", "st-crnn/64x200"),
            errors("text", "crnn/64x200"),
        ),
        r"([\d.]+) % errors, ([\d.]+) % without": lambda: (errors("volumes", "st-cnn/32"), errors("volumes", "cnn/32")),
    },
    "docs/looks.md": {
        r"\[([\d.]+) % of the images\]": lambda: (both_found(),),
        r"have ([\d.]+) % errors. A single": lambda: (errors("parts", "2xlook/84"),),
        r"both digits and has ([\d.]+) % errors": lambda: (errors("parts", "look/84"),),
        r"four steps give ([\d.]+) % errors and one step ([\d.]+) %": lambda: (
            errors("alignment", "ic-stn-4/56"),
            errors("alignment", "ic-stn-1/56"),
        ),
        **{
            rf"\| {cell} \| ([\d.]+) % \| ([\d.]+) \|": partial(looks_at_birds, cell)
            for cell in ("whole photograph", "center crop", "learned look")
        },
        r"size of the center crop would have an IoU of ([\d.]+), with the true area ([\d.]+)\.": boxes_of_birds,
        r"of 56x56 pixels, gives ([\d.]+) %": lambda: (errors("alignment", "st-cnn/28"),),
        r"with \[([\d.]+) % errors; with a start": lambda: (row_of("table1-history", cell="st-cnn-affine/tc"),),
        r"middle half it has ([\d.]+) %": lambda: (errors("table1", "st-cnn-affine/tc"),),
    },
    "docs/registration.md": {
        rf"{motion} \| {method} \| (\d+) % \| (\S+) \| (\S+) \|": partial(registered, contender, motion)
        for motion, method, contender in (
            ("affine, 20 degrees", '`"affine"`', "stn affine"),
            ("affine, 20 degrees", "pystackreg", "pystackreg affine"),
            ("affine, 20 degrees", "kornia, homography", "kornia homography"),
            ("affine, 20 degrees", "kornia, .* better rate", "kornia homography, lr 1e-2, 300 steps"),
            ("affine, 45 degrees", '`"affine"`', "stn affine"),
            ("affine, 45 degrees", "pystackreg", "pystackreg affine"),
            ("projective, 20 degrees", '`"projective"`', "stn projective"),
            ("projective, 45 degrees", '`"projective"`', "stn projective"),
        )
    }
    | {
        rf"\| {method} \| (\S+) \| (\d+) \| (\d+) \| (\S+) \|": partial(overlaps, cell)
        for cell, method in (
            ("centers", "centers aligned"),
            ("affine", "affine"),
            ("velocity", "affine, then velocity"),
            ("learned", "the network"),
            ("learned-steps", "the network, then 8 steps"),
            ("SimpleITK", "SimpleITK, .*?"),
            ("greedy", "greedy, .*?"),
            ("ANTs", "ANTs, .*?"),
        )
    }
    | {
        r"in (\d+) minutes on two cores": lambda: (minutes_of_training(),),
        r"then misses a voxel by (\S+) on average, .*? network by (\S+)\.": lambda: (missed("velocity"), missed("learned")),
    },
    "docs/sampling.md": {
        r"`antialias=True` \| ([\d.]+) / ([\d.]+); ": lambda: option_costs("antialias=True"),
        r"; ([\d.]+) / ([\d.]+) if a `Pyramid`": lambda: option_costs("antialias=True, existing pyramid"),
        r'`antialias="anisotropic"` \| ([\d.]+) / ([\d.]+), ': lambda: option_costs('antialias="anisotropic"'),
        r'`mode="bicubic"` or `"catmull_rom"` \| (\d) / ([\d.]+) \|': lambda: option_costs('mode="bicubic"'),
        r'`mode="bspline"` \| (\d+) / (\d+) \|': lambda: option_costs('mode="bspline"'),
        r"`return_mask=True` \| ([\d.]+) / ([\d.]+) \|": lambda: option_costs("return_mask=True"),
        r"to within (\d) % of the range": lambda: (max(shrunk(True)),),
        r"Plain sampling differs by (\d) to (\d) %": lambda: (min(shrunk(False)), max(shrunk(False))),
        r"48 pixels away in (\d+) % of the trials, and from 96 pixels away in (\d+) %": lambda: (
            recovered("plain", 48),
            recovered("plain", 96),
        ),
        r"The wide gradient aligns them from 96 pixels away in (\d+) %": lambda: (recovered("wide", 96),),
        r"With Adam it is (\d+) % with the plain gradient and (\d+) % with the wide gradient": lambda: (
            recovered("plain, Adam", 96),
            recovered("wide, Adam", 96),
        ),
        r"(\d+) to (\d+) times the time of bilinear": lambda: (
            min(option_costs('mode="lanczos3"', "both")),
            max(option_costs('mode="lanczos3"', "theta")),
        ),
    },
    "docs/training.md": {
        r"\| 36 \| 256 \| ([\d.]+) % \|": lambda: (row_of("table1-history", cell="st-cnn-affine/rts", epochs=36),),
        r"\| 70 \| 256 \| ([\d.]+) % \|": lambda: (row_of("table1-history", cell="st-cnn-affine/rts", epochs=70),),
        r"\| 130 \| 512 \| ([\d.]+) % \|": lambda: (row_of("table1", cell="st-cnn-affine/rts", epochs=130),),
        r"images: ([\d.]+) % after 65 epochs of 256": lambda: (row_of("table1-history", cell="st-cnn-tps/rts", epochs=65),),
        r"per step, ([\d.]+) % after 130 of 512": lambda: (row_of("table1", cell="st-cnn-tps/rts", epochs=130),),
    },
    "docs/volumes.md": {
        r"\[([\d.]+) % errors without the layer and ([\d.]+) % with it\]": lambda: (
            errors("volumes", "cnn/32"),
            errors("volumes", "st-cnn/32"),
        ),
    },
    "docs/weights.md": {
        r"at least ([\d.]+) times as wide as high": lambda: (WIDE,),
        **{
            rf"{start} ([\d.]+) {between} .*? spread ([\d.]+) %": partial(card_error, name)
            for name in cards()
            for start, between in (
                (rf"\| `{name}` \|", r"\|"),
                (rf"### {name} .*?\*\*Test error\.\*\*", "%:"),
            )
        },
    },
    "docs/runs.md": {r"more than ([\d,]+) pixels need": lambda: (MAX_PIXELS,)},
    "results/table1-history.md": {
        r"middle half of the image \| ([\d.]+) \| ([\d.]+) \|": lambda: changed("st-cnn-affine/tc"),
        r"a higher learning rate \| ([\d.]+) \| ([\d.]+) \|": lambda: changed("fcn/tc"),
        r"ST-CNN projective, P \| twice .*? \| ([\d.]+) \| ([\d.]+) \|": lambda: changed("st-cnn-projective/p"),
        r"70 epochs instead of 36 \| ([\d.]+) \| ([\d.]+) \|": lambda: (
            row_of("table1-history", cell="st-cnn-affine/rts", epochs=36),
            row_of("table1-history", cell="st-cnn-affine/rts", epochs=70),
        ),
        r"130 epochs instead of 70, .*? \| ([\d.]+) \| ([\d.]+) \|": lambda: changed("st-cnn-affine/rts", epochs=70),
        r"ST-CNN tps, RTS \| twice .*? \| ([\d.]+) \| ([\d.]+) \|": lambda: changed("st-cnn-tps/rts"),
        r"\| CNN, RTS \| twice .*? \| ([\d.]+) \| ([\d.]+) \|": lambda: changed("cnn/rts"),
        r"families in this column \| ([\d.]+) \| ([\d.]+) \|": lambda: changed("st-fcn-tps/rts"),
    },
}
# page -> sentences with a number that is in no row, and the reason
PRICE = "2 to 4 times"  # the price of a wide gradient: on an AMD EPYC 1.8 to 2.8, on an Intel Xeon 2 to 4.5, by the shape
UNCHECKED = {
    "README.md": (f"{PRICE} the cost of theta's exact gradient",),
    "docs/sampling.md": (f"better, and {PRICE} as fast", "1.0 / 2 to 4 |"),
    "docs/playground.md": ("16 MB, or 5 MB from",),  # tests/test_digit_panel.py weighs the files
    "docs/first.md": ("printed 1.8 % without and 0.8 % with the layer",),  # printed by the page's own code
    # Conditions of stn.lab.studies.registration.
    "docs/registration.md": ("15 % of the width with 20 degrees", "25 % with 45", "a scale of 10 or 25 % along each axis"),
    # The second is printed by the command below the sentence.
    "docs/training.md": (f"takes {PRICE} as long", "has 1.35 % errors with Muon and 1.59 % with AdamW"),
}


def agree(written: str, value: float) -> bool:
    """Return True if `written` is `value` rounded to as many digits."""
    written = written.replace(",", "")
    if "e" in written:
        return float(written) == float(f"{value:.0e}")
    places = len(written.partition(".")[2])
    return float(written) == round(value, places)


def prose(page: str) -> str:
    """Return the text of the page without its code, on one line."""
    return " ".join(re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE).split())


@pytest.mark.parametrize("page, pattern", [(page, pattern) for page in CHECKED for pattern in CHECKED[page]])
def test_a_number_on_a_page_is_that_of_its_row(page: str, pattern: str) -> None:
    matches = list(re.finditer(pattern, prose(page)))
    assert len(matches) == 1
    numbers = CHECKED[page][pattern]()
    assert all(agree(text, value) for text, value in zip(matches[0].groups(), numbers, strict=True)), numbers


# a share, a ratio, a time or a size in memory
MEASURED = r"\d[\d.,e-]* ?(?:%|x(?![\dM])\b|(?:times|ms|s|seconds|minutes|errors|[KMG]i?B)\b)"


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_every_measured_number_is_checked(page: str) -> None:
    text = prose(page)
    spans = [match.span() for pattern in CHECKED.get(page, ()) for match in re.finditer(pattern, text)]
    for part in UNCHECKED.get(page, ()):
        assert part in text, f"{part!r} is no longer on the page"
        spans.append((text.index(part), text.index(part) + len(part)))
    left = [m for m in re.finditer(MEASURED, text) if not any(a <= m.start() and m.end() <= b + 2 for a, b in spans)]
    assert not left, [text[max(0, m.start() - 60) : m.end() + 20] for m in left]


def test_the_numbers_about_refinement() -> None:
    """Rounding decides where the optimization ends, so the page gives bounds."""
    text, errors = prose("docs/registration.md"), refined()
    match = re.search(r"prints (\S+) and an error below (\S+) pixels", text)
    assert match and agree(match[1], errors["coarse"]) and errors["fine"] < float(match[2]), errors
    match = re.search(r"raises its error from below (\S+) to above (\S+) pixels", text)
    assert match and errors["first"] < float(match[1]) < float(match[2]) < errors["again"], errors


def test_exported_networks_differ_by_less_than_the_page_says() -> None:
    (limit,) = re.findall(r"differs from the network by less than (\S+?)\. ", prose("docs/export.md"))
    assert max(row["difference"] for row in from_rows("export")["rows"] if "difference" in row) < float(limit)


def test_half_precision_is_as_the_readme_says() -> None:
    """The test does not run torch's own sampling, which reads memory outside the image here and may crash the process."""
    assert "right at any size" in prose("README.md")
    for size, dtype in itertools.product((56, 224, 1000), (torch.float16, torch.bfloat16)):
        image = torch.rand(1, 3, size, size, dtype=dtype)
        assert torch.equal(stn.affine_sample(image, torch.eye(2, 3, dtype=dtype)), image)


def test_a_wrong_number_is_seen() -> None:
    assert agree("5.7", 5.74) and not agree("5.8", 5.74) and not agree("5.70", 5.74)
    assert agree("7e-4", 6.7e-4) and not agree("7e-4", 7.6e-4)
    assert re.findall(MEASURED, "5.7 times, 99.98 %, 12 ms, 2x") == ["5.7 times", "99.98 %", "12 ms", "2x"]
    assert not re.findall(MEASURED, "64x64, 3x3 pixels, a 3x3 matrix")
