"""Tests of srgan_lib.checkpoints."""

import json
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from srgan_lib.architectures import SRResNet
from srgan_lib.checkpoints import load_state, load_weights, save_state, save_weights
from srgan_lib.errors import WeightsError


def small(**changes: int | bool) -> SRResNet:
    return SRResNet(**({"blocks": 1, "width": 4, "end_kernel": 3} | changes))


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_weights_and_batch_norm_buffers_come_back_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before, after = small(), small()
    before(torch.rand(2, 1, 8, 8))  # moves the running means
    save_weights(before, tmp_path / "w.safetensors")
    load_weights(after, tmp_path / "w.safetensors")
    assert states_equal(before, after)
    assert after.tail[1].num_batches_tracked == 1


def test_half_precision_is_rounded_and_half_as_large(tmp_path: Path) -> None:
    before, after = small(width=32), small(width=32)
    save_weights(before, tmp_path / "full.safetensors")
    save_weights(before, tmp_path / "half.safetensors", half=True)
    load_weights(after, tmp_path / "half.safetensors")
    torch.testing.assert_close(after.last.weight, before.last.weight.half().float())
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
    assert 0.45 < sizes[1] / sizes[0] < 0.6


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (small(width=8), "shape"),
        (small(blocks=2), "blocks.1"),
        (small(channels=3), "shape"),
        (small(batch_norm=False), "body.0.bias"),
        (small(bicubic_skip=True), "bicubic_skip=False, not True"),
        (nn.Linear(2, 2), "missing"),
    ],
)
def test_weights_of_another_architecture_change_nothing(
    tmp_path: Path, other: nn.Module, words: str
) -> None:
    save_weights(small(), tmp_path / "w.safetensors")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(WeightsError, match=words):
        load_weights(other, tmp_path / "w.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_noise_weights_of_a_file_that_does_not_tell_of_them_are_kept(tmp_path: Path) -> None:
    before, after = small(noise=True), small(noise=True)
    torch.nn.init.normal_(before.noise[1].gain.weight)
    state = {name: value.contiguous() for name, value in before.state_dict().items()}
    save_file(state, tmp_path / "bare.safetensors")
    load_weights(after, tmp_path / "bare.safetensors")
    assert states_equal(before, after)
    del state["noise.0.gain.bias"]
    save_file(state, tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match=r"noise\.0\.gain\.bias is missing"):
        load_weights(after, tmp_path / "bare.safetensors")


def test_file_that_promises_noise_weights_and_has_none_is_refused(tmp_path: Path) -> None:
    network = small()
    network.arguments = network.arguments | {"noise": True}
    save_weights(network, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"noise\.0\.gain\.weight is missing"):
        load_weights(small(noise=True), tmp_path / "w.safetensors")


def test_more_weights_than_the_network_has_are_refused(tmp_path: Path) -> None:
    save_weights(small(blocks=2), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"it holds blocks\.1"):
        load_weights(small(blocks=1), tmp_path / "w.safetensors")


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(small(), path)
    data = path.read_bytes()
    for length in range(0, len(data), len(data) // 20):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="not a whole safetensors file"):
            load_weights(small(), path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        load_weights(small(), tmp_path / "none.safetensors")


def test_a_pickle_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "ran").touch, ())

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(WeightsError, match="may run code"):
        load_weights(small(), tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_values_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    network = small()
    with torch.no_grad():
        network.last.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match=r"last\.bias"):
        save_weights(network, tmp_path / "w.safetensors")
    with torch.no_grad():
        network.last.bias.fill_(1e6)
    with pytest.raises(WeightsError, match=r"last\.bias"):
        save_weights(network, tmp_path / "w.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []


def test_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    network = small()
    for number in range(8):  # safetensors alone writes the header's entries in any order
        save_weights(network, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_weights_without_a_word_on_their_arguments_are_taken(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Linear(2, 2))
    save_weights(plain, tmp_path / "w.safetensors")
    other = nn.Sequential(nn.Linear(2, 2))
    load_weights(other, tmp_path / "w.safetensors")
    assert states_equal(plain, other)


# Training states


def same(one: Any, other: Any) -> bool:
    """Compare nested states: types, dtypes, shapes and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def example() -> dict[str, Any]:
    return {
        "nothing": None,
        "yes": True,
        "number": 3,
        "large": 2**70,
        "third": 1 / 3,
        "tiny": 5e-324,
        "inf": math.inf,
        "-inf": -math.inf,
        "nan": math.nan,
        "text": 'Größe "x"\n\\',
        "empty": {"dict": {}, "list": [], "tuple": ()},
        "nested": [({"a": [None, (1, 2.0)]},), [[]], {"tensor": "000000"}, {"dict": [1]}],
        "state": {0: {"step": torch.tensor(3.0)}, 1: {"step": torch.tensor(4.0)}},
        "keys": {1: "int", "1": "text", None: "none", 2.5: "float", "": "empty"},
        "tensors": [
            torch.rand(2, 3),
            torch.rand(2, 3, dtype=torch.float64),
            torch.rand(5).bfloat16(),
            torch.rand(5).half(),
            torch.arange(7, dtype=torch.uint8),
            torch.tensor([True, False]),
            torch.tensor(-(2**62)),
            torch.zeros(0),
            torch.zeros(2, 0, 3),
            torch.tensor([math.inf, math.nan, -0.0]),
            torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
            torch.rand(4, 4).T,
            torch.rand(4, requires_grad=True),
        ],
        "random": torch.get_rng_state(),
    }


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    state = example()
    save_state(state, tmp_path / "s.safetensors")
    found = load_state(tmp_path / "s.safetensors")
    state["tensors"][-1] = state["tensors"][-1].detach()
    assert same(found, state)
    assert math.copysign(1, found["tensors"][9][2]) == -1


def test_an_optimiser_s_state_comes_back(tmp_path: Path) -> None:
    network = small()
    adam = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.rand(1, 1, 8, 8)).mean().backward()
    adam.step()
    save_state(adam.state_dict(), tmp_path / "s.safetensors")
    assert same(load_state(tmp_path / "s.safetensors"), adam.state_dict())


def test_tensors_that_share_memory_come_back_equal(tmp_path: Path) -> None:
    base = torch.rand(6)
    state = {"one": base, "again": base, "part": base[2:4]}
    save_state(state, tmp_path / "s.safetensors")
    assert same(load_state(tmp_path / "s.safetensors"), state)


def test_kinds_of_tuples_and_dictionaries_become_plain_ones(tmp_path: Path) -> None:
    save_state(
        {"size": torch.rand(2, 3).shape, "ordered": OrderedDict(b=1, a=2)}, tmp_path / "s.st"
    )
    assert same(load_state(tmp_path / "s.st"), {"size": (2, 3), "ordered": {"b": 1, "a": 2}})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({1, 2}, "set"),
        (nn.Linear(1, 1), "Linear"),
        (b"bytes", "bytes"),
        (print, "builtin_function_or_method"),
        (1j, "complex"),
        ({(1, 2): 3}, "tuple as a key"),
        ({b"a": 3}, "bytes as a key"),
    ],
)
def test_what_a_state_can_not_hold_is_refused_and_nothing_is_written(
    tmp_path: Path, value: Any, name: str
) -> None:
    with pytest.raises(WeightsError, match=f"can't hold a {name}"):
        save_state({"a": torch.zeros(2), "b": [value]}, tmp_path / "s.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_any_byte_of_a_state_that_is_altered_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    state = {"epoch": 3, "w": torch.rand(4), "n": [torch.arange(3), (None, "x")]}
    save_state(state, path)
    data = path.read_bytes()
    kept = 0
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1 << (place % 8)
        path.write_bytes(altered)
        try:
            found = load_state(path)
        except WeightsError as error:
            assert "s.safetensors is no whole training state" in str(error)
        else:  # a blank in the header may become another blank
            assert same(found, state)
            kept += 1
    assert kept <= 8


def test_a_state_cut_short_anywhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_state({"epoch": 3, "w": torch.rand(40)}, path)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="is no whole training state"):
            load_state(path)
    path.write_bytes(data + b"x")
    with pytest.raises(WeightsError, match="is no whole training state"):
        load_state(path)


def test_a_header_that_was_exchanged_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_state({"epoch": 3, "w": torch.rand(4)}, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["state"] = header["__metadata__"]["state"].replace("3", "4", 1)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(WeightsError, match="SHA-256 disagree"):
        load_state(path)


def test_files_that_are_no_states_are_refused(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "ran").touch, ())

    (tmp_path / "s.pth").write_bytes(pickle.dumps(Planted()))
    torch.save({"a": Planted()}, tmp_path / "t.pth")
    save_weights(small(), tmp_path / "w.safetensors")
    (tmp_path / "folder").mkdir()
    for name in ("s.pth", "t.pth", "w.safetensors", "folder", "missing"):
        with pytest.raises(WeightsError, match=rf"{name} is no whole training state: \S"):
            load_state(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_state_that_was_loaded_does_not_hang_on_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_state({"w": torch.ones(1000)}, path)
    found = load_state(path)
    save_state({"w": torch.zeros(1000)}, path)
    path.unlink()
    found["w"].add_(1)
    assert torch.equal(found["w"], torch.full((1000,), 2.0))
