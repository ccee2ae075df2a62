"""The exercises grade themselves: stubs, right answers, wrong answers, crashes, and solutions."""

import ast
import functools
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from write_solutions import CHECK, SOLUTIONS, differs, exercises, solution

from srgan_lib import exercises as checks
from srgan_lib.architectures import Discriminator, VGGFeatures
from srgan_lib.architectures.srresnet import SubPixelStage
from srgan_lib.consistency import measured_part, project
from srgan_lib.degradation import degrade, quantise, resize, resize_matrix
from srgan_lib.evaluation import super_resolve
from srgan_lib.findings import Finding, implant, match
from srgan_lib.losses import discriminator_loss
from srgan_lib.metrics import radial_power
from srgan_lib.results import mean_over_patients

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@functools.cache
def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def stub_cells() -> dict[str, str]:
    """Every cell of a course notebook that ends in a check, by the check's name."""
    found = {}
    for path in NOTEBOOKS:
        for cell in read(path).cells:
            if cell.cell_type == "code" and (line := CHECK.search(cell.source)):
                found[line[0].split(".")[1].split("(")[0]] = cell.source
    return found


STUBS = stub_cells()


def run(source: str, capsys: pytest.CaptureFixture[str]) -> str:
    exec(compile(source, "<cell>", "exec"), {"exercises": checks, "torch": torch})
    return capsys.readouterr().out.strip()


def test_each_check_has_one_stub() -> None:
    assert sorted(STUBS) == sorted(checks.__all__)


@pytest.mark.parametrize("name", sorted(STUBS))
def test_untouched_stub_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(STUBS[name], capsys) == "not attempted yet"


@pytest.mark.parametrize("name", sorted(STUBS))
def test_crash_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(STUBS[name].replace("raise NotImplementedError", "return 1 / 0"), capsys)
    assert said.startswith("Not yet. Your code stops")
    assert "ZeroDivisionError: division by zero" in said
    assert f"The check called {name.removeprefix('check_')}(" in said
    assert len(said) < 400 and "\n" not in said


@pytest.mark.parametrize("name", sorted(STUBS))
def test_missing_return_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(STUBS[name].replace("raise NotImplementedError", "pass"), capsys)
    assert "returns nothing. Is a `return` missing?" in said


def test_line_that_stops_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cell.py"
    path.write_text("def grain_penalty(image):\n    return image.dif(dim=-1)\n", encoding="utf-8")
    space: dict[str, Callable] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    checks.check_grain_penalty(space["grain_penalty"])
    said = capsys.readouterr().out
    assert "in the line `return image.dif(dim=-1)`" in said
    assert "no attribute 'dif'" in said


def test_library_without_a_feature_is_no_untouched_stub(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checks.check_fakes(lambda opponent, lr: nn.Module()(lr))
    assert "NotImplementedError" in capsys.readouterr().out


def test_answer_that_is_no_function(capsys: pytest.CaptureFixture[str]) -> None:
    checks.check_receptive_field(125)
    assert "Hand over the function itself" in capsys.readouterr().out


def test_check_leaves_the_random_state(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_rng_state()
    checks.check_commutes(lambda reduce, image: True)
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr().out


# Right answers that go another way, and wrong ones that once passed


def test_difference_of_images_as_they_are_stored(capsys: pytest.CaptureFixture[str]) -> None:
    checks.check_difference_map(lambda a, b, x: (stored(a, x) - stored(b, x)).abs())
    checks.check_difference_map(lambda a, b, x: (stored(b, x) - stored(a, x)).abs().double())
    assert capsys.readouterr().out == "right!\n" * 2


def penalised_by_hand(psi: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    loss = F.softplus(-psi * 0) + F.softplus(psi * theta.item())
    return (loss + 0.3 * psi * psi).sum()


def test_penalised_loss_in_other_words(capsys: pytest.CaptureFixture[str]) -> None:
    checks.check_penalised_loss(penalised_by_hand)
    assert capsys.readouterr().out == "right!\n"


@pytest.mark.parametrize("value", [0.0, 0.02, -1.0])
def test_network_of_equal_weights_is_not_fresh(
    value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    checks.check_fresh_discriminator(lambda: filled(value))
    assert "aren't those of a new network" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(5))
def test_any_new_discriminator_is_fresh(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fresh() -> Discriminator:
        torch.manual_seed(seed)
        return Discriminator(width=16, grid=1)

    checks.check_fresh_discriminator(fresh)
    checks.check_fresh_discriminator(lambda: fresh().to(memory_format=torch.channels_last))
    assert capsys.readouterr().out == "right!\n" * 2


# The solutions: folded in the book, executed in notebooks/solutions/, and one and the same


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_are_the_folded_ones(path: Path) -> None:
    assert not differs(path), "run tools/write_solutions.py"
    solved = [check.split(".")[1].split("(")[0] for *_, check in exercises(read(path))]
    in_stubs = [name for name in STUBS if any(STUBS[name] == c.source for c in read(path).cells)]
    assert solved == in_stubs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_pass(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, object] = {}
    for cell in solution(path).cells:
        if cell.cell_type == "code" and cell.id != "colab":
            exec(compile(cell.source, f"<{cell.id}>", "exec"), space)
            assert capsys.readouterr().out == ("" if cell.id == "setup" else "right!\n"), cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_say_right(path: Path) -> None:
    for cell in read(SOLUTIONS / path.name).cells:
        if cell.get("id", "").startswith("solution-"):
            assert "".join(out.text for out in cell.outputs) == "right!\n"


def test_drift_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = NOTEBOOKS[0]
    changed = deepcopy(read(path))
    cell = next(c for c in changed.cells if "low, high = float(" in c.source)
    cell.source = cell.source.replace("low, high = float(", "lowest, high = float(")
    (tmp_path / path.name).write_text(nbformat.writes(changed), encoding="utf-8")
    assert differs(tmp_path / path.name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_exercise_without_a_folded_solution(path: Path) -> None:
    text = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    parts = re.split(r"^### Exercise ", text, flags=re.MULTILINE)[1:]
    assert parts
    assert all("{admonition} Solution\n:class: dropdown" in part for part in parts)


def test_stub_and_solution_have_the_same_parameters() -> None:
    for path in NOTEBOOKS:
        for _, code, check in exercises(read(path)):
            name = check.split(".")[1].split("(")[0]
            signatures = [
                next(
                    ast.unparse(node.args)
                    for node in ast.parse(source).body
                    if isinstance(node, ast.FunctionDef)
                )
                for source in (STUBS[name], code)
            ]
            assert signatures[0] == signatures[1], name


# Wrong answers, each with words of the hint that only it gets


def with_upsample(*widths: int) -> Callable[[nn.Module], nn.Module]:
    def swap(network: nn.Module) -> nn.Module:
        network.upsample = nn.Sequential(*(SubPixelStage(width) for width in widths))
        return network

    return swap


def with_shares(shares: list[float]) -> Callable[[nn.Module], nn.Module]:
    def change(network: nn.Module) -> nn.Module:
        copy = deepcopy(network)
        copy.average.data = torch.tensor(shares)
        return copy

    return change


def spoil_given(weights: dict[str, float]) -> dict[str, float]:
    weights["adversarial_weight"] = 0.0
    return weights


def stored(network: nn.Module, lr: torch.Tensor) -> torch.Tensor:
    return torch.stack([super_resolve(network, image) for image in lr])


def filled(value: float) -> Discriminator:
    network = Discriminator(width=16, grid=1)
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)
    return network


def experienced_discriminator() -> Discriminator:
    network = Discriminator(width=16, grid=1)
    network(torch.rand(2, 1, 48, 48))
    return network


def used_up(psi: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    loss = discriminator_loss(psi * 0, psi * theta.detach()) + 0.3 * psi**2
    loss.backward()
    return loss


def zero_given(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        network.average[:-1] = 0
    return network


def without_no_grad(network: nn.Module) -> nn.Module:
    copy = deepcopy(network)
    copy.average[:-1] = 0
    return copy


def invisible(image: torch.Tensor) -> torch.Tensor:
    seen = image[0].double()
    for dim, n in enumerate(seen.shape):
        a = resize_matrix(n, n // 4).double()
        project = torch.linalg.pinv(a) @ a
        seen = project @ seen if dim == 0 else seen @ project.T
    return image - seen[None].float()


def features(net: VGGFeatures, image: torch.Tensor, layers: nn.Module) -> torch.Tensor:
    return layers((image.expand(-1, 3, -1, -1) - net.mean) / net.std)


def psnr_of(values: torch.Tensor) -> float:
    return -10 * float(values.mean().log10())


def boxed_zero(squared: torch.Tensor, box: tuple[slice, slice]) -> float:
    copy = squared.clone()
    copy[box] = 0
    return psnr_of(copy[4:-4, 4:-4])


def without_box(squared: torch.Tensor, box: tuple[slice, slice]) -> float:
    mask = torch.ones_like(squared, dtype=torch.bool)
    mask[box] = False
    return psnr_of(squared[mask])


def generator_count(stages: Callable[[int], int]) -> Callable[[int], int]:
    return lambda scale: 1_231_186 + stages(scale) * 147_713


def field(stride_first: bool) -> Callable[[list[int]], int]:
    def width(strides: list[int]) -> int:
        r, j = 1, 1
        for stride in strides:
            if stride_first:
                r, j = r + 2 * j * stride, j * stride
            else:
                r += 2
        return r

    return width


ONE_DISCRIMINATOR = Discriminator(width=16, grid=1)
MIDDLE = (..., slice(16, 48), slice(16, 48))


def shifted(back: int, dim: int = -1) -> Callable[[nn.Module, torch.Tensor, int], torch.Tensor]:
    def difference(network: nn.Module, lr: torch.Tensor, shift: int) -> torch.Tensor:
        return (network(lr.roll(shift, dim)).roll(back * shift, dim) - network(lr)).abs()

    return difference


def planted(image: torch.Tensor, finding: Finding) -> torch.Tensor:
    return quantise(implant(image, finding)[0])


def fitted(network: nn.Module, image: torch.Tensor, finding: Finding) -> torch.Tensor:
    return match(super_resolve(network, degrade(image)), finding)


def gained(network: nn.Module, image: torch.Tensor, finding: Finding) -> torch.Tensor:
    return fitted(network, planted(image, finding), finding) - fitted(network, image, finding)


def lied(throw: torch.Tensor, lr: torch.Tensor, finding: Finding) -> torch.Tensor:
    return quantise(project(implant(throw, finding)[0], lr))


def moved(
    measure: Callable[[Finding], float], finding: Finding, halves: range, axis: str = "row"
) -> list[float]:
    start = getattr(finding, axis)
    values = [measure(replace(finding, **{axis: start + half / 2})) for half in halves]
    return [min(values), max(values)]


def swin(w: int, h: int, s: int, norms: bool = True, offsets: int = 0, bias: int = 1) -> int:
    linear = 8 * w * w + bias * 7 * w
    return linear + norms * 4 * w + (offsets or (2 * s - 1) ** 2) * h


def espcn(c: int, s: int, bias: int = 1, last: int = 0, first: int = 0) -> int:
    last = last or c * s * s
    weights = (first or 25) * c * 64 + 9 * 64 * 32 + 9 * 32 * last
    return weights + bias * (64 + 32 + last)


WRONG: dict[str, list[tuple[Callable, str]]] = {
    "tightest_window": [
        (lambda x: ((x.min() + x.max()) / 2, x.max() - x.min()), "c - 0.5 and w - 1"),
        (lambda x: (x.min(), x.max()), "lowest and highest value"),
        (lambda x: (x.max() - x.min() + 1, (x.min() + x.max()) / 2 + 0.5), "Centre first"),
        (lambda x: x.max(), "2 numbers"),
    ],
    "false_period": [
        (lambda p, s: s / p - 1, "slip from sample to sample"),
        (lambda p, s: s / (s / p - 1), "in HR pixels"),
        (lambda p, s: 1 / (s / p - 1), "for 4.4 it is negative"),
        (lambda p, s: s / p, "Whole ones can't be seen"),
    ],
    "commutes": [
        (lambda f, x: True, "says that slicing commutes"),
        (lambda f, x: torch.allclose(f(x.flip(-2)), f(x).flip(-2), atol=1e-5), "last axis, -1"),
        (lambda f, x: torch.equal(f(x.flip(-1)), f(x).flip(-1)), "torch.allclose and a small"),
        (lambda f, x: f(x.flip(-1)) == f(x).flip(-1), "True or False is wanted"),
    ],
    "expected_leaks": [
        (lambda n, p: sum(1 - (1 - p) ** k for k in n), "one image can't leak"),
        (lambda n, p: sum(n) * p, "test *images*"),
        (lambda n, p: sum(k * (1 - (1 - p) ** k - p**k) for k in n), "Count each patient once"),
    ],
    "psnr_change": [
        (lambda z: 20 * np.log10(z), "the sign is wrong"),
        (lambda z: -10 * np.log10(z), "*squared* differences"),
        (lambda z: -20 * np.log(z), "base 10"),
        (lambda z: -20 * np.log10(2), "factor is the argument"),
    ],
    "middle_weights": [
        (lambda a: [0.5 - a / 8, a / 8, a / 8, 0.5 - a / 8], "nearest pixels are inside"),
        (lambda a: [-0.0625, 0.5625, 0.5625, -0.0625], "Keys' slope"),
        (lambda a: [a / 8, 0.5, 0.5, a / 8], "must add up to 1"),
        (lambda a: [0.5 - a / 8, a / 8], "you return 2"),
    ],
    "psnr_without": [
        (lambda s, b: psnr_of(s[4:-4, 4:-4]), "The letter is still in"),
        (boxed_zero, "set to zero and still counted"),
        (without_box, "leave out 4 pixels at each border"),
        (lambda s, b: s, "Is a mean or sum missing?"),
    ],
    "generator_parameters": [
        (lambda scale: 1_526_612, "count at scale 4"),
        (generator_count(lambda scale: scale // 2), "not 4"),
        (lambda s: generator_count({2: 1, 4: 2, 8: 3}.get)(s) - s.bit_length() + 1, "PReLU"),
    ],
    "is_even": [
        (lambda k, s: k % 2 == 0, "An even kernel isn't the point"),
        (lambda k, s: k == s, "you say no"),
        (lambda k, s: k % s != 0, "wrong way round"),
        (lambda k, s: k > s or k == s, "and you say even"),
    ],
    "least_absolute_error": [
        (lambda x: x.mean(dim=0), "best for the *squared* error"),
        (lambda x: x.amax(dim=0), "draws all lines"),
        (lambda x: x.median(dim=1).values, "The shape should be"),
        (lambda x: torch.zeros(1, 12, 12), "Right for the toy"),
    ],
    "receptive_field": [
        (field(stride_first=True), "only for the layers *behind*"),
        (field(stride_first=False), "leave the strides out"),
        (lambda strides: 2 ** sum(s == 2 for s in strides), "distance between neighbours"),
    ],
    "constant_loss": [
        (lambda p: -np.log(p), "real images only"),
        (lambda p: -(np.log(p) + np.log(1 - p)) / 2, "doesn't halve"),
        (lambda p: -2 * np.log(p), "right answer is 1 - p"),
        (lambda p: np.log(p) + np.log(1 - p), "minus the logarithm"),
    ],
    "discriminator_parameters": [
        (lambda g: 23_562_497, "count for grid 6"),
        (lambda g: 4_686_080 + 512 * g**2 * 1024 + 1025, "1,024 biases"),
        (lambda g: 4_686_080 + 512 * g**2 * 1024 + 1024, "last dense layer is missing"),
    ],
    "fakes": [
        (lambda o, lr: o.eval()(lr), "Is a `detach()`"),
        (lambda o, lr: o(lr).detach(), "training mode"),
        (lambda o, lr: lr, "These are LR images"),
        (lambda o, lr: o.eval()(lr).detach().clamp(0, 1), "Don't clamp"),
    ],
    "same_error": [
        (lambda x, y, m: x + (y - x) * m / (y - x).square().mean(), "a root is missing"),
        (lambda x, y, m: (y - x) * (m / (y - x).square().mean()).sqrt(), "error alone"),
        (
            lambda x, y, m: (x + (y - x) * (m / (y - x).square().mean()).sqrt()).clamp(0, 1),
            "You clamp",
        ),
    ],
    "grain_penalty": [
        (lambda x: x.diff(dim=-1).square().mean(), "Add those above and below"),
        (lambda x: x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean(), "you take |x|"),
        (
            lambda x: (x.diff(dim=-1).square().mean() + x.diff(dim=-2).square().mean()).detach(),
            "carries no gradient",
        ),
        (lambda x: x.diff(dim=-1).square(), "The shape should be ()"),
    ],
    "features_before": [
        (lambda net, x: net(x), "last ReLU is still there"),
        (lambda net, x: net.layers[:-1](x.expand(-1, 3, -1, -1)), "normalisation is forgotten"),
        (lambda net, x: features(net, x, net.layers[:-1]).detach(), "no gradient gets back"),
        (lambda net, x: net.layers[:-1](x), "VGG wants three channels"),
    ],
    "difference_map": [
        (lambda a, b, x: (a.eval()(x) - b.eval()(x)).abs(), "torch.no_grad()"),
        (lambda a, b, x: (a.eval()(x) - b.eval()(x)).detach(), "both signs"),
        (lambda a, b, x: (a(x) - b(x)).abs().detach(), "in training mode, where"),
        (lambda a, b, x: (a(x) - b(x)).abs().mean(), "hides *where*"),
        (lambda a, b, x: (a.eval()(x) - b.eval()(x)).square().detach(), "squared difference"),
        (lambda a, b, x: (stored(a, x) - stored(a, x)).abs(), "asked twice"),
    ],
    "without_adversary": [
        (spoil_given, "changes the dictionary"),
        (lambda w: {k: v for k, v in w.items() if "adv" not in k}, "is gone"),
        (lambda w: dict.fromkeys(w, 0.0), "one thing at a time"),
        (lambda w: w | {"adversarial": 0.0}, "should be 0"),
    ],
    "fresh_discriminator": [
        (lambda: ONE_DISCRIMINATOR, "Two calls give the same network"),
        (lambda: Discriminator(width=16), "The grid isn't 1"),
        (lambda: Discriminator(grid=1), "The width isn't 16"),
        (lambda: Discriminator, "That is the class"),
        (lambda: filled(0.0), "aren't those of a new network"),
        (lambda: deepcopy(experienced_discriminator()), "already seen images"),
    ],
    "penalised_loss": [
        (lambda p, t: discriminator_loss(p * 0, p * t) + 0.3 * p**2, "Is `theta.detach()` missing"),
        (lambda p, t: discriminator_loss(p * 0, p * t.detach()), "penalty 0.3 * psi**2 is missing"),
        (lambda p, t: discriminator_loss(p * 0, p * t) - 0.3 * p**2, "*reward*"),
        (
            lambda p, t: (discriminator_loss(p * 0, p * t) + 0.3 * p**2).detach(),
            "don't use `.item()`",
        ),
        (
            lambda p, t: discriminator_loss(p * 0, p * t.detach()) + 0.3 * p.detach() ** 2,
            "the penalty has no gradient",
        ),
        (
            lambda p, t: discriminator_loss(p * 0, (p * t).detach()) + 0.3 * p**2,
            "only the penalty has a gradient",
        ),
        (used_up, "its graph is used up"),
        (lambda p, t: torch.tensor([1.0], requires_grad=True), "as in the toy game"),
    ],
    "interval_over_images": [
        (lambda g: mean_over_patients(g, ["one"] * len(g))[1:], "no end"),
        (lambda g: mean_over_patients(g, [str(i) for i in range(len(g))]), "two ends only"),
        (lambda g: tuple(np.quantile(g, [0.025, 0.975])), "spread of the *images*"),
        (lambda g: mean_over_patients(g, [str(i // 9) for i in range(len(g))])[1:], "own: as"),
        (lambda g: mean_over_patients(g, [str(i) for i in range(len(g))])[:0:-1], "comes first"),
    ],
    "erase": [
        (invisible, "invisible part itself"),
        (lambda x: x, "Nothing is erased"),
        (lambda x: x - invisible(x), "Use `quantise`"),
        (lambda x: quantise(x + invisible(x)), "added instead of subtracted"),
        (lambda x: quantise(resize(x, (32, 40)).mean() + 0 * x), "differs by up to"),
        (lambda x: quantise(x - invisible(x) / 2), "The LR image stays as it was"),
    ],
    "spectral_distance": [
        (
            lambda a, b: (radial_power(a)[1] - radial_power(b)[1]).abs().mean(),
            "The logarithm is missing",
        ),
        (
            lambda a, b: (radial_power(a)[1].log() - radial_power(b)[1].log()).mean(),
            "take absolute values",
        ),
        (lambda a, b: (radial_power(a)[0] - radial_power(b)[0]).abs().mean(), "the frequencies"),
        (lambda a, b: (radial_power(a)[1] / radial_power(b)[1]).log().abs(), "One number"),
    ],
    "lattice_measure": [
        (lambda x: 1.0, "of the same strength everywhere"),
        (lambda x: x.std() * 255 / 4, "A slope with grain without any lattice"),
        (lambda x: 1e-3, "White grain without any lattice"),
        (lambda x: x, "One number"),
    ],
    "espcn_parameters": [
        (lambda c, s: espcn(c, s, bias=0), "The biases are missing"),
        (lambda c, s: espcn(c, s, last=c * s), "square the scale"),
        (lambda c, s: espcn(c, s, first=9), "5 x 5, not 3 x 3"),
    ],
    "swap_upsampler": [
        (with_upsample(8), "Scale 4 takes two"),
        (with_upsample(64, 64), "another width"),
        (lambda n: n, "still enlarges by repeating"),
        (lambda n: nn.Sequential(SubPixelStage(8), SubPixelStage(8)), "without the rest"),
    ],
    "keep_last": [
        (zero_given, "Change a `deepcopy`"),
        (with_shares([0.2, 0.3, 0.0]), "wrong ones"),
        (without_no_grad, "torch.no_grad()"),
        (with_shares([0.5]), "not be cut off"),
    ],
    "no_mask": [
        (lambda h, w, n, s, d: torch.full((h * w // n**2, n * n, n * n), -torch.inf), "forbids"),
        (lambda h, w, n, s, d: torch.ones(h * w // n**2, n * n, n * n), "cancels in the softmax"),
        (lambda h, w, n, s, d: torch.zeros(4, n * n, n * n), "Four windows"),
        (lambda h, w, n, s, d: torch.zeros(h * w // n**2, n * n, n * n).bool(), "not booleans"),
    ],
    "swin_parameters": [
        (lambda w, h, s: swin(w, h, s, norms=False), "layer norms are missing"),
        (lambda w, h, s: swin(w, h, s, offsets=s * s), "offsets run from -7 to 7"),
        (lambda w, h, s: swin(w, h, s, bias=0), "linear layers have biases"),
    ],
    "shift_error": [
        (lambda n, x, s: shifted(-1)(n, x, s)[MIDDLE].max(), "by `shift` only"),
        (lambda n, x, s: shifted(-4)(n, x, s).max(), "The border is in"),
        (lambda n, x, s: shifted(4)(n, x, s)[MIDDLE].max(), "back: minus"),
        (lambda n, x, s: shifted(-4, -2)(n, x, s)[MIDDLE].max(), "You move down"),
    ],
    "contrast_kept": [
        (lambda n, x, f: gained(n, x, f)[6, 6] / f.contrast, "comes out negative"),
        (lambda n, x, f: gained(n, x, f)[6, 6], "That is a contrast"),
        (lambda n, x, f: fitted(n, planted(x, f), f)[6, 6] / abs(f.contrast), "Take it off"),
        (
            lambda n, x, f: (match(planted(x, f), f) - match(x, f))[6, 6] / abs(f.contrast),
            "what HR keeps",
        ),
        (
            lambda n, x, f: (
                (fitted(n, planted(x, f), f).max() - fitted(n, x, f).max()) / abs(f.contrast)
            ),
            "best offset",
        ),
        (
            lambda n, x, f: (
                (fitted(n, implant(x, f)[0], f) - fitted(n, x, f))[6, 6] / abs(f.contrast)
            ),
            "Round the image",
        ),
    ],
    "extremes": [
        (lambda m, f: moved(m, f, range(8), axis="column"), "to the side"),
        (lambda m, f: moved(m, f, range(0, 16, 2)), "half a pixel, not one"),
        (lambda m, f: moved(m, f, range(0, -8, -1)), "larger rows"),
        (lambda m, f: moved(m, f, range(9)), "one step too far"),
        (lambda m, f: moved(m, f, range(8))[::-1], "Smallest first"),
        (lambda m, f: moved(m, f, range(8))[0], "you return one thing"),
        (lambda m, f: setattr(f, "row", f.row + 0.5), "makes a changed copy"),
    ],
    "worst_map": [
        (lambda e: e, "best map there is"),
        (lambda e: 1 / e, "Add a little"),
        (lambda e: -e, "would give itself away"),
        (lambda e: torch.ones_like(e), "same everywhere"),
        (lambda e: torch.rand(e.shape), "stays near 1"),
        (lambda e: (e < e.median()).float(), "just the other way round"),
    ],
    "alibi": [
        (lambda mine, other: mine, "That is `mine` itself"),
        (lambda mine, other: other, "That is `other` as it was"),
        (lambda mine, other: project(mine, degrade(other)), "wrong way round"),
        (lambda mine, other: (mine + other) / 2, "to what?"),
        (lambda mine, other: measured_part(mine), "LR agrees. But"),
    ],
    "sample_that_lies": [
        (lambda throws, lr, f: throws[2], "as it was"),
        (lambda throws, lr, f: implant(throws[2], f)[0], "LR finds you out"),
        (lambda throws, lr, f: quantise(throws.mean(dim=0)), "doesn't see a line"),
        (lambda throws, lr, f: lied(throws[0], lr, f), "Its detail gives it away"),
        (lambda throws, lr, f: lied(throws[2], lr, f) + 1, "leave [0, 1]"),
        (lambda throws, lr, f: lied(throws[2], lr, f) + 0j, "complex numbers"),
    ],
}


TWO_MISTAKES = [
    (
        lambda n, x, f: (fitted(n, implant(x, f)[0], f) - fitted(n, x, f))[6, 6] / f.contrast,
        ("Round the image", "comes out negative"),
    ),
    (
        lambda n, x, f: fitted(n, planted(x, f), f).max() / abs(f.contrast),
        ("Take it off", "best offset"),
    ),
    (
        lambda n, x, f: (match(planted(x, f), f) - match(x, f))[6, 6],
        ("what HR keeps", "That is a contrast"),
    ),
]


@pytest.mark.parametrize(("answer", "words"), TWO_MISTAKES)
def test_two_mistakes_at_once_are_both_named(answer, words, capsys) -> None:
    checks.check_contrast_kept(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet. Two things. ")
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    "answer",
    [
        lambda throws, lr, f: lied(throws[4], lr, f),
        lambda throws, lr, f: project(implant(throws[2], f)[0], lr),  # not rounded
        lambda throws, lr, f: lied(throws[5], lr, replace(f, contrast=0.15)),
        lambda throws, lr, f: lied(throws[3], lr, f).requires_grad_(),
    ],
)
def test_every_convincing_lie_is_right(answer, capsys) -> None:
    checks.check_sample_that_lies(answer)
    assert capsys.readouterr().out == "right!\n"


def hints(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    said = []
    for answer, _ in WRONG[name]:
        getattr(checks, f"check_{name}")(answer)
        said.append(capsys.readouterr().out.strip())
    return said


def test_every_check_meets_wrong_answers() -> None:
    assert {f"check_{name}" for name in WRONG} == set(checks.__all__)
    assert min(map(len, WRONG.values())) >= 3


@pytest.mark.parametrize("name", sorted(WRONG))
def test_wrong_answers_get_their_own_hints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = hints(name, capsys)
    assert len(set(said)) == len(said)
    for text, (_, words) in zip(said, WRONG[name], strict=True):
        assert text.startswith("Not yet. ")
        assert words in text
        assert sum(words in other for other in said) == 1
