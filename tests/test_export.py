"""Networks as ONNX files: the same numbers at any size, borders included."""

import errno
import os
import sys

import pytest
import torch

from srgan_lib import export
from srgan_lib.architectures import Discriminator, Interpolation, NeighbourEmbedding, SRResNet
from srgan_lib.degradation import KERNELS
from srgan_lib.errors import ConfigurationError, SRGANError
from srgan_lib.export import PolyphaseInterpolation, export_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NETWORKS = {
    "paper": {"blocks": 1, "width": 4},
    "skip": {"blocks": 1, "width": 4, "batch_norm": False, "bicubic_skip": True, "end_kernel": 3},
    "dice": {"blocks": 1, "width": 4, "bicubic_skip": True, "end_kernel": 3, "noise": True},
    "skip, colour, x2": {"blocks": 1, "width": 4, "bicubic_skip": True, "channels": 3, "scale": 2},
}


def lively(**arguments):
    """Return an SRResNet whose output says something, as batch norm does after training."""
    torch.manual_seed(0)
    network = SRResNet(**arguments)
    for name, parameter in network.named_parameters():
        if name == "last.weight" or "gain" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def run_onnx(path, lr, *noise):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = dict(zip(("lr", "noise"), (lr, *noise), strict=False))
    return torch.from_numpy(
        session.run(["sr"], {name: value.numpy() for name, value in inputs.items()})[0]
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Each network of NETWORKS, with the file that it was exported to."""
    folder = tmp_path_factory.mktemp("onnx")
    made = {}
    for number, (name, arguments) in enumerate(NETWORKS.items()):
        made[name] = lively(**arguments), folder / f"{number}.onnx"
        export_onnx(*made[name])
    return made


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 7), (16, 9)])
def test_polyphase_interpolation_is_interpolation_also_at_the_border(kernel, scale, size):
    network, lr = Interpolation(kernel, scale), torch.rand(2, 3, *size)
    found = PolyphaseInterpolation(network, channels=3)(lr)
    assert (found - network(lr)).abs().max() < 2e-6


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (17, 40), (64, 33)])
@pytest.mark.parametrize("batch", [1, 3])
def test_file_gives_the_network_s_numbers_at_any_size(files, name, size, batch):
    network, path = files[name]
    lr = torch.rand(batch, network.channels, *size)
    noise = [torch.randn(batch, network.noise_channels, *size)] if network.noise_channels else []
    with torch.no_grad():
        expected = network(lr, *noise)
    found = run_onnx(path, lr, *noise)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
    if noise:
        assert (run_onnx(path, lr, -noise[0]) - expected).abs().max() > 0.01


def test_interpolation_is_exported_too(tmp_path):
    export_onnx(Interpolation("bicubic", 4), tmp_path / "bicubic.onnx")
    lr = torch.rand(2, 1, 7, 10)
    found = run_onnx(tmp_path / "bicubic.onnx", lr)
    assert (found - Interpolation("bicubic", 4)(lr)).abs().max() < 1e-5


def test_file_names_its_input_and_says_what_its_images_are(files):
    model = onnx.load(files["skip"][1])
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["batch", 1, "height", "width"]
    properties = {item.key: item.value for item in model.metadata_props}
    assert properties["network"] == "SRResNet" and properties["scale"] == "4"
    assert "not for diagnosis" in properties["notice"] and "not for diagnosis" in model.doc_string


def test_file_of_a_network_with_dice_names_its_noise(files):
    model = onnx.load(files["dice"][1])
    assert [item.name for item in model.graph.input] == ["lr", "noise"]
    shape = model.graph.input[1].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["batch", 21, "height", "width"]
    properties = {item.key: item.value for item in model.metadata_props}
    assert properties["noise_channels"] == "21" and "standard normal" in properties["noise"]
    other = onnx.load(files["skip"][1])
    assert [item.name for item in other.graph.input] == ["lr"]
    assert not any("noise" in item.key for item in other.metadata_props)


def test_network_is_left_as_it_was(tmp_path):
    network = lively(**NETWORKS["skip"]).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_onnx(network, tmp_path / "network.onnx")
    assert network.training and isinstance(network.bicubic, Interpolation)
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["skip", "dice"])
def test_file_holds_plain_operations_on_float32_only(files, name):
    """Matrices made for a size would need float64 and loops of indices, which browsers lack."""
    graph = onnx.load(files[name][1]).graph
    plain = {"Add", "Conv", "DepthToSpace", "Div", "PRelu"}
    sizes = {
        "Cast",
        "Concat",
        "Constant",
        "Expand",
        "Gather",
        "Mul",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
    }
    assert {node.op_type for node in graph.node} <= plain | sizes
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    assert {tensor.data_type for tensor in graph.initializer} <= kinds


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "network.onnx"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SRGANError, match="no space is left"):
        export_onnx(Interpolation(), path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["network.onnx"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_packages_are_named_with_the_extra(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SRGANError, match=rf'package {package}\..*"srgan_lib\[onnx\]"'):
        export_onnx(Interpolation(), tmp_path / "network.onnx")
    assert os.listdir(tmp_path) == []


def test_failed_export_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "network.onnx"
    path.write_bytes(b"old")

    def fail(*args, **options):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(export.torch.onnx, "export", fail)
    with pytest.raises(SRGANError, match=r"failed \(RuntimeError: no such operator\)"):
        export_onnx(Interpolation(), path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["network.onnx"]


@pytest.mark.parametrize("network", [Discriminator(width=2), NeighbourEmbedding(examples=20)])
def test_other_networks_are_refused(tmp_path, network):
    with pytest.raises(ConfigurationError, match=r"can't be exported; .*SRCNN, .* can\.") as caught:
        export_onnx(network, tmp_path / "network.onnx")
    assert str(caught.value).startswith(type(network).__name__)
    assert os.listdir(tmp_path) == []
