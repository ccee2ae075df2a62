"""Devices and precisions, also those of machines that are not at hand."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from srgan_lib import hardware
from srgan_lib.errors import ConfigurationError
from srgan_lib.hardware import best_device, best_precision, describe_hardware, make_accelerator

CPU = torch.device("cpu")


def set_cpu(monkeypatch, capability, bf16):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)


def set_gpu(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((7, 0), "fp16"),  # V100
        ((7, 5), "fp16"),  # T4
        ((8, 0), "bf16"),  # A100
        ((8, 9), "bf16"),  # L4
        ((9, 0), "bf16"),  # H100
        ((12, 0), "bf16"),
    ],
)
def test_gpu_takes_bfloat16_from_ampere_on_and_float16_before(monkeypatch, capability, precision):
    set_gpu(monkeypatch, capability)
    assert best_device() == torch.device("cuda")
    assert best_precision() == best_precision("cuda") == precision


@pytest.mark.parametrize(
    ("capability", "bf16", "precision"),
    [
        ("AVX512", True, "bf16"),
        ("AVX512", False, "no"),
        ("AVX2", False, "no"),
        ("AVX2", True, "no"),
        ("DEFAULT", False, "no"),
    ],
)
def test_cpu_takes_bfloat16_only_where_it_is_fast(monkeypatch, capability, bf16, precision):
    set_gpu(monkeypatch, None)
    set_cpu(monkeypatch, capability, bf16)
    assert best_device() == CPU
    assert best_precision() == best_precision("cpu") == precision
    assert best_precision("mps") == "no"


@pytest.mark.parametrize("order", [("no", "bf16", "no"), ("bf16", "no", "bf16")])
def test_one_process_can_go_from_one_precision_to_another(order):
    for precision in order:
        accelerator = make_accelerator(precision, CPU)
        assert accelerator.mixed_precision == precision
        assert accelerator.device.type == "cpu" and accelerator.num_processes == 1
        with accelerator.autocast():
            found = torch.nn.functional.linear(torch.rand(2, 2), torch.rand(2, 2)).dtype
        assert found == (torch.bfloat16 if precision == "bf16" else torch.float32)
        assert accelerator.scaler is None


def test_same_precision_twice_keeps_accelerate_s_state():
    make_accelerator("no", CPU)
    AcceleratorState._shared_state["mark"] = 1
    make_accelerator("no", CPU)
    assert AcceleratorState._shared_state.pop("mark") == 1


def test_one_process_can_go_from_one_device_to_another(monkeypatch):
    """Accelerate keeps its first device; here that is a GPU, which the machine doesn't have."""
    make_accelerator("no", CPU)
    gpu = torch.device("cuda")
    monkeypatch.setitem(PartialState._shared_state, "device", gpu)
    monkeypatch.setitem(AcceleratorState._shared_state, "device", gpu)
    accelerator = make_accelerator("no", CPU)
    assert accelerator.device.type == AcceleratorState().device.type == "cpu"


def test_auto_is_the_best_precision(monkeypatch):
    for best in ("no", "bf16"):
        monkeypatch.setattr(hardware, "best_precision", lambda device, best=best: best)
        assert make_accelerator("auto", CPU).mixed_precision == best


def test_cpu_is_taken_also_where_a_gpu_would_be_found(monkeypatch):
    set_gpu(monkeypatch, (9, 0))
    assert make_accelerator("no", CPU).device == CPU


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(ConfigurationError, match=r'float16 needs a CUDA GPU.*"auto", "bf16" or'):
        make_accelerator("fp16", CPU)


def test_unknown_precision_suggests_the_nearest():
    with pytest.raises(ConfigurationError, match=r"Unknown precision 'bf17'\. Did you mean 'bf16'"):
        make_accelerator("bf17", CPU)


def test_description_names_hardware_and_versions(monkeypatch):
    described = describe_hardware()
    assert json.loads(json.dumps(described)) == described
    keys = "processor threads cpu_capability gpu system python torch accelerate"
    assert list(described) == keys.split()
    assert described["torch"] == torch.__version__
    assert described["threads"] == torch.get_num_threads()
    assert all(value not in ("", None) for value in described.values())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert describe_hardware()["gpu"] == "Tesla T4"


def test_processor_is_named_without_proc_too(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert hardware._processor_name()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_and_cpu_take_turns():
    for device, precision in [("cuda", "fp16"), ("cpu", "no"), ("cuda", "bf16"), ("cuda", "no")]:
        accelerator = make_accelerator(precision, torch.device(device))
        assert accelerator.device.type == device
        assert (accelerator.scaler is not None) == (precision == "fp16")
