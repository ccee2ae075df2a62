"""Tests of srgan_lib.checkpoints."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from srgan_lib.architectures import SRResNet
from srgan_lib.checkpoints import load_weights, save_weights
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
