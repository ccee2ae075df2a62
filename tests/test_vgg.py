"""VGG features, against torchvision's own networks."""

import os
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from srgan_lib.architectures import VGGFeatures
from srgan_lib.architectures.vgg import layer_names
from srgan_lib.errors import ConfigurationError, ImageError, WeightsError

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
# Where torchvision's `features` has the activation, counted in its printed layers.
CUTS = {
    "vgg16": {"relu1_1": 2, "relu1_2": 4, "relu2_2": 9, "relu3_3": 16, "relu5_3": 30},
    "vgg19": {"relu1_2": 4, "relu2_2": 9, "relu3_4": 18, "relu4_4": 27, "relu5_4": 36},
}


@pytest.fixture(scope="module")
def twins():
    """torchvision's convolutions, untrained but with He's large weights."""
    torch.manual_seed(0)
    found = {}
    for network in CUTS:
        features = getattr(torchvision.models, network)(weights=None, init_weights=False).features
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        found[network] = features.eval()
    return found


@pytest.fixture(scope="module")
def made(twins, tmp_path_factory):
    """Files of these weights, with the whole model's names as torchvision publishes them."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for network, features in twins.items():
        state = {f"features.{key}": value for key, value in features.state_dict().items()}
        state["classifier.0.weight"] = torch.zeros(2, 2)
        paths[network] = folder / f"{network}.pth"
        torch.save(state, paths[network])
    return paths


@pytest.fixture(scope="module")
def shipped():
    return VGGFeatures("relu2_2")


@pytest.mark.parametrize(
    ("network", "layer"), [(network, layer) for network in CUTS for layer in CUTS[network]]
)
def test_features_are_torchvision_s_after_the_named_activation(twins, made, network, layer):
    image = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        expected = twins[network][: CUTS[network][layer]]((image - MEAN) / STD)
        found = VGGFeatures(layer, network, made[network])(image)
    torch.testing.assert_close(found, expected)
    assert found.min() == 0 and found.max() > 0


def test_shipped_weights_fit_torchvision_s_network(shipped):
    features = torchvision.models.vgg16(weights=None, init_weights=False).features[:9].eval()
    features.load_state_dict(shipped.layers.state_dict())
    image = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(shipped(image), features((image - MEAN) / STD))


def test_shipped_weights_are_the_original_ones_of_caffe_s_scale(shipped):
    assert shipped.rescale == pytest.approx(1 / 12.75)
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert 10 < shipped(ramp).mean() < 1000  # torchvision's own weights give about 1
    deeper = VGGFeatures("relu3_3")
    assert torch.equal(deeper.layers[5].weight, shipped.layers[5].weight)
    assert not torch.equal(deeper.layers[5].weight, torch.zeros_like(deeper.layers[5].weight))


def test_layers_are_named_by_block_and_convolution():
    assert layer_names("vgg16")[:4] == ("conv1_1", "relu1_1", "conv1_2", "relu1_2")
    assert (len(layer_names("vgg16")), layer_names("vgg16")[-1]) == (2 * 13, "relu5_3")
    assert (len(layer_names("vgg19")), layer_names("vgg19")[-1]) == (2 * 16, "relu5_4")


def test_features_before_activation_are_those_that_relu_cuts():
    image = torch.rand(1, 1, 24, 24)
    before, after = VGGFeatures("conv3_3"), VGGFeatures("relu3_3")
    assert before(image).min() < 0
    torch.testing.assert_close(before(image).relu(), after(image))
    both = after.activations(image, ("conv2_1", "relu2_1"))
    assert torch.equal(both["conv2_1"].relu(), both["relu2_1"])


@pytest.mark.parametrize(
    ("layer", "channels", "stride"), [("relu1_2", 64, 1), ("relu2_2", 128, 2), ("relu3_3", 256, 4)]
)
def test_features_have_the_stated_shape(layer, channels, stride):
    with torch.no_grad():
        found = VGGFeatures(layer)(torch.rand(1, 1, 32, 48))
    assert found.shape == (1, channels, 32 // stride, 48 // stride)


def test_grey_counts_as_rgb_with_equal_channels(shipped):
    grey = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(shipped(grey), shipped(grey.repeat(1, 3, 1, 1)))


def test_network_stays_frozen_and_in_evaluation_mode(shipped):
    shipped.train()
    assert not any(module.training for module in shipped.modules())
    assert not any(parameter.requires_grad for parameter in shipped.parameters())
    holder = nn.Sequential(VGGFeatures("relu1_1")).train()
    assert not holder[0].training


def test_gradient_reaches_the_image_through_the_frozen_network(shipped):
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    shipped(image).mean().backward()
    assert image.grad.abs().sum() > 0


def test_buffers_move_with_the_module_but_rescale_is_not_applied(shipped):
    assert {"mean", "std"} <= {name for name, _ in shipped.named_buffers()}
    image = torch.rand(1, 3, 16, 16)
    other = VGGFeatures("relu2_2", rescale=0.5)
    assert other.rescale == 0.5
    torch.testing.assert_close(other(image), shipped(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float16_autocast_is_left_for_float32(dtype):
    features = VGGFeatures("relu1_2")
    image = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=dtype):
        found = features(image)
    if dtype == torch.float16:
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, features(image))
    else:
        assert found.dtype == torch.bfloat16


def test_activations_that_float16_can_not_hold_stay_finite():
    features = VGGFeatures("relu1_2")
    with torch.no_grad():
        features.layers[0].weight.mul_(1e4)
    with torch.autocast("cpu", dtype=torch.float16):
        found = features(torch.rand(1, 3, 16, 16).half())
    assert torch.isfinite(found).all() and found.max() > 65504


# Failures


def test_unknown_network_and_layer_suggest_the_nearest():
    with pytest.raises(ConfigurationError, match="Did you mean 'vgg1"):
        VGGFeatures(network="vgg17")
    with pytest.raises(ConfigurationError, match="Unknown layer of vgg16 'relu5_4'"):
        VGGFeatures("relu5_4")


@pytest.mark.parametrize(
    ("layer", "network"), [("relu4_1", "vgg16"), ("relu5_3", "vgg16"), ("relu2_2", "vgg19")]
)
def test_layer_that_is_not_shipped_says_how_to_get_it(layer, network):
    with pytest.raises(WeightsError) as caught:
        VGGFeatures(layer, network)
    assert f"ships VGG16 through relu3_3 only, not {network} {layer}" in str(caught.value)
    assert 'weights="imagenet"' in str(caught.value) and "weights=PATH" in str(caught.value)


def test_original_weights_come_from_the_data_folder(tmp_path, monkeypatch):
    folder = tmp_path / "vgg16-imagenet"
    folder.mkdir()
    state = {}
    for name, parameter in torchvision.models.vgg16().features.state_dict().items():
        state[name] = torch.full_like(parameter, 0.5).half()
    save_file(state, folder / "vgg16_features_fp16.safetensors")
    monkeypatch.setenv("SRGAN_DATA_DIR", str(tmp_path))
    features = VGGFeatures("relu5_3", weights="original")
    assert features.rescale == 1 / 12.75
    assert all((p == 0.5).all() for p in features.parameters())
    with pytest.raises(WeightsError, match=r"not there, or not for vgg19"):
        VGGFeatures("relu5_3", "vgg19", "original")
    monkeypatch.setenv("SRGAN_DATA_DIR", str(folder))
    with pytest.raises(WeightsError, match=r"that SRGAN_DATA_DIR names"):
        VGGFeatures("relu5_3", weights="original")
    monkeypatch.delenv("SRGAN_DATA_DIR")
    with pytest.raises(WeightsError, match=r"that SRGAN_DATA_DIR names"):
        VGGFeatures("relu5_3", weights="original")


def test_original_weights_agree_with_the_shipped_ones(monkeypatch):
    root = Path(os.environ.get("SRGAN_DATA_DIR") or "nowhere")
    if not (root / "vgg16-imagenet").is_dir():
        pytest.skip("SRGAN_DATA_DIR names no folder that holds vgg16-imagenet")
    image = torch.rand(1, 1, 32, 32)
    original, shipped = (VGGFeatures("relu3_3", weights=w) for w in ("original", "shipped"))
    torch.testing.assert_close(original(image), shipped(image))


def test_weights_of_another_network_are_refused(made):
    with pytest.raises(WeightsError, match="don't hold vgg19 through relu5_4"):
        VGGFeatures("relu5_4", "vgg19", made["vgg16"])


def test_weights_that_lack_a_tensor_are_refused_by_its_name(made):
    state = torch.load(made["vgg16"], weights_only=True)
    del state["features.10.bias"]
    other = made["vgg16"].with_name("cut.pth")
    torch.save(state, other)
    VGGFeatures("relu2_2", "vgg16", other)
    with pytest.raises(WeightsError, match=r"through relu3_1: '10\.bias' is missing"):
        VGGFeatures("relu3_1", "vgg16", other)


def test_weights_of_another_shape_are_refused(made):
    state = torch.load(made["vgg16"], weights_only=True)
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    other = made["vgg16"].with_name("shape.pth")
    torch.save(state, other)
    with pytest.raises(WeightsError, match="don't hold vgg16"):
        VGGFeatures("relu1_1", "vgg16", other)


def test_weights_are_read_from_safetensors_too(made, tmp_path):
    state = torch.load(made["vgg19"], weights_only=True)
    half = {key.removeprefix("features."): value.half() for key, value in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    found = VGGFeatures("relu1_2", "vgg19", tmp_path / "half.safetensors")
    expected = state["features.2.weight"].half().float()
    assert torch.equal(found.layers[2].weight, expected)
    assert found.rescale == 1


class Planted:
    """What would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_planted_in_a_pickle_is_not_run(tmp_path, writer):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    if writer == "torch":
        torch.save({"0.weight": Planted(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"0.weight": Planted(trace)}, 2))
    with pytest.raises(WeightsError, match="Could not read weights"):
        VGGFeatures("relu1_1", weights=path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Planted(trace))).close()
    assert trace.exists()  # the plant does work where nobody looks


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("missing.pth", None, "There is no file"),
        ("broken.pth", b"broken", "Could not read weights"),
        ("broken.safetensors", b"broken", "Could not read weights"),
        ("empty.pth", b"", "Could not read weights"),
    ],
)
def test_missing_and_broken_files_are_named(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=f"{message}.*{name}"):
        VGGFeatures("relu1_1", weights=tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, torch.zeros(2)])
def test_file_without_a_dictionary_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="no dictionary of tensors"):
        VGGFeatures("relu1_1", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_failed_download_says_what_to_do(monkeypatch, network):
    asked = []

    def fail(url, *args, **kwargs):
        asked.append(url)
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(WeightsError, match=f"could not download the weights of {network}.*no netw"):
        VGGFeatures("relu2_2", network, "imagenet")
    assert len(asked) == 1 and network in asked[0]


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_downloaded_weights_are_used_as_they_are(monkeypatch, made, network):
    def load(url, *args, weights_only=False, check_hash=False, **kwargs):
        assert weights_only and check_hash
        return torch.load(made[network], weights_only=True)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    found = VGGFeatures("relu1_1", network, "imagenet")
    named = VGGFeatures("relu1_1", network, made[network])
    assert torch.equal(found.layers[0].weight, named.layers[0].weight)
    assert found.rescale == 1


def test_wrong_shapes_are_refused(shipped):
    with pytest.raises(ImageError, match=r"\(N, C, H, W\)"):
        shipped(torch.zeros(3, 16, 16))
    with pytest.raises(ImageError, match="2 channels"):
        shipped(torch.zeros(1, 2, 16, 16))
