"""The networks before and after SRResNet, against the papers' counts and ideas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srgan_lib.architectures import DRCN, ESPCN, SRCNN, Interpolation, RRDBNet, SwinIR
from srgan_lib.architectures.swinir import SwinLayer, from_windows, to_windows
from srgan_lib.checkpoints import save_weights
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.export import export_onnx
from srgan_lib.pretrained import load_network

SMALL = {
    SRCNN: {"widths": (6, 4)},
    ESPCN: {"widths": (6, 4)},
    DRCN: {"width": 6, "recursions": 3},
    RRDBNet: {"blocks": 2, "width": 6, "growth": 3},
    SwinIR: {"depths": (2, 2), "width": 6, "heads": 2, "window": 4},
}
SCALES = {network: (2, 4) if network is RRDBNet else (2, 3, 4) for network in SMALL}
EACH = pytest.mark.parametrize("network", SMALL, ids=lambda network: network.__name__)


def count(module, what="parameters"):
    if what == "weights":
        return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))
    return sum(parameter.numel() for parameter in module.parameters())


# Counts


@pytest.mark.parametrize(("side", "weights"), [(1, 8_032), (5, 57_184)])
def test_srcnn_has_the_paper_s_weights(side, weights):
    assert count(SRCNN(mapping_kernel=side), "weights") == weights


def test_espcn_s_weights_by_hand():
    assert count(ESPCN(scale=3), "weights") == 25 * 64 + 9 * 64 * 32 + 9 * 32 * 9


def test_drcn_s_parameters_by_hand_whatever_the_recursions():
    same = 9 * 256 * 256 + 256
    ends = (9 * 256 + 256) + (9 * 256 + 1)
    for recursions in (1, 16):
        assert count(DRCN(recursions=recursions)) == ends + 3 * same + recursions


def test_rrdbnet_has_16_697_987_parameters():
    # A dense block: 9 (64 * 32 + 96 * 32 + 128 * 32 + 160 * 32 + 192 * 64) + 4 * 32 + 64.
    block = 9 * (64 + 96 + 128 + 160) * 32 + 9 * 192 * 64 + 4 * 32 + 64
    same = 9 * 64 * 64 + 64
    ends = (9 * 3 * 64 + 64) + (9 * 64 * 3 + 3)
    by_hand = 23 * 3 * block + same + 2 * same + same + ends
    with torch.device("meta"):
        assert count(RRDBNet(channels=3)) == by_hand == 16_697_987


def test_lightweight_swinir_has_929_628_parameters():
    # The paper says 897 K: that is without the 9 * 60 * 60 weights of one convolution.
    norm, same = 2 * 60, 9 * 60 * 60 + 60
    attention = (60 * 180 + 180) + (60 * 60 + 60) + 15**2 * 6
    layer = norm + attention + norm + (60 * 120 + 120) + (120 * 60 + 60)
    ends = (9 * 3 * 60 + 60) + (9 * 60 * 48 + 48)
    by_hand = 4 * (6 * layer + same) + 2 * norm + same + ends
    assert count(SwinIR(channels=3)) == by_hand == 929_628 == 897_228 + 9 * 60 * 60


# What all share


@EACH
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (12, 9)])
def test_output_is_scale_times_as_large_at_any_size(network, channels, size):
    for scale in SCALES[network]:
        with torch.no_grad():
            found = network(channels, scale, **SMALL[network])(torch.rand(2, channels, *size))
        assert found.shape == (2, channels, size[0] * scale, size[1] * scale)
        assert torch.isfinite(found).all()


@EACH
def test_every_parameter_gets_a_gradient(network):
    torch.manual_seed(0)
    generator = network(**SMALL[network])
    generator(torch.rand(2, 1, 8, 8)).square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@EACH
def test_what_an_lr_pixel_moves_moves_with_it(network):
    """Convolutions promise that a shifted image is enlarged alike, away from the borders."""
    generator = network(scale=2, **SMALL[network]).eval().double()
    lr = torch.rand(1, 1, 72, 72, dtype=torch.float64)
    down, right = (4, 8) if network is SwinIR else (1, 2)  # its windows are 4 x 4
    with torch.no_grad():
        sr, moved = generator(lr), generator(lr.roll((down, right), (-2, -1)))
    inner = (..., slice(56, 88), slice(56, 88))
    torch.testing.assert_close(moved[inner], sr.roll((2 * down, 2 * right), (-2, -1))[inner])


@EACH
def test_half_precision_is_close(network):
    generator = network(**SMALL[network]).eval()
    lr = torch.rand(1, 1, 12, 12)
    with torch.no_grad():
        whole, half = generator(lr), generator.bfloat16()(lr.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - whole).abs().max() < 0.05


@EACH
def test_weights_are_saved_and_loaded_with_their_form(network, tmp_path):
    generator = network(channels=3, scale=2, **SMALL[network]).eval()
    save_weights(generator, tmp_path / "own.safetensors")
    again = load_network(tmp_path / "own.safetensors")
    lr = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(again(lr), generator(lr))


@EACH
def test_wrong_inputs_and_forms_are_refused(network):
    for shape in ((1, 3, 8, 8), (1, 8, 8), (8, 8)):
        with pytest.raises(ImageError, match=rf"{network.__name__} takes \(N, 1, H, W\)"):
            network(**SMALL[network])(torch.zeros(shape))
    with pytest.raises(ConfigurationError, match="channels must be 1 or 3, not 2"):
        network(channels=2)
    with pytest.raises(ConfigurationError, match=r"scale must be 2.* or 4, not 5"):
        network(scale=5)
    name = next(iter(SMALL[network]))
    with pytest.raises(ConfigurationError, match=f"{name} must be positive"):
        network(**{name: (0, 1) if name == "widths" else 0})


def test_srcnn_s_middle_kernel_is_odd():
    with pytest.raises(ConfigurationError, match="mapping_kernel must be odd, not 2"):
        SRCNN(mapping_kernel=2)


# The point of each paper


def test_srcnn_sharpens_the_bicubic_image():
    generator = SRCNN(**SMALL[SRCNN])
    seen = []
    generator.extraction.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    lr = torch.rand(1, 1, 6, 6)
    generator(lr)
    assert torch.equal(seen[0], Interpolation("bicubic")(lr))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_espcn_s_sub_pixel_convolution_is_a_transposed_one_rearranged(scale):
    generator = ESPCN(scale=scale, **SMALL[ESPCN]).double()
    convolution = generator.sub_pixel[0]
    lr = torch.rand(1, 1, 7, 6, dtype=torch.float64)
    x = generator.features(lr)
    # The SR pixel at place (a, b) of a cell sees LR pixel (i, j) through weight [a s + b, :, i, j].
    kernel = torch.zeros(4, 1, 3 * scale, 3 * scale, dtype=torch.float64)
    for a in range(scale):
        for b in range(scale):
            weight = convolution.weight[a * scale + b].flip(-2, -1)  # (width, 3, 3)
            kernel[:, 0, a::scale, b::scale] = weight
    found = F.conv_transpose2d(x, kernel, stride=scale, padding=scale)
    bias = convolution.bias.view(1, 1, scale, scale).repeat(1, 1, 7, 6)
    torch.testing.assert_close(found + bias, generator(lr))


def test_drcn_is_one_convolution_recursion_by_recursion():
    generator = DRCN(**SMALL[DRCN])
    lr = torch.rand(2, 1, 5, 5)
    bicubic = generator.bicubic(lr)
    state = generator.embedding(bicubic)
    expected = []
    for _ in range(3):
        state = generator.inference(state)
        expected.append(generator.reconstruction(state) + bicubic)
    assert torch.equal(generator(lr, each=True)[1], torch.stack(expected))
    # All start alike, since the shared convolution begins by passing its state on.
    torch.testing.assert_close(expected[0], expected[2])
    torch.testing.assert_close(generator(lr), expected[0])
    with torch.no_grad():
        generator.average.copy_(torch.tensor([1.0, 0.0, 3.0]))
        nn.init.normal_(generator.inference[0].weight, std=0.2)
        first, _, third = generator(lr, each=True)[1]
        torch.testing.assert_close(generator(lr), 0.25 * first + 0.75 * third)


def test_rrdb_scales_what_it_adds():
    generator = RRDBNet(**SMALL[RRDBNet])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in generator.modules())
    rrdb = generator.blocks[0]
    x = torch.rand(1, 6, 5, 5)
    inner = rrdb.body[0]
    seen = [x]
    for convolution in inner.convolutions[:4]:
        seen.append(F.leaky_relu(convolution(torch.cat(seen, 1)), 0.2))
    by_hand = x + 0.2 * inner.convolutions[4](torch.cat(seen, 1))
    torch.testing.assert_close(inner(x), by_hand)
    for block in rrdb.body:
        nn.init.zeros_(block.convolutions[4].weight)
        nn.init.constant_(block.convolutions[4].bias, 1.0)
    torch.testing.assert_close(rrdb(x), x + 0.2 * (x + 0.6))


def test_windows_are_cut_and_put_back():
    x = torch.arange(2 * 8 * 12).view(2, 8, 12, 1)
    windows = to_windows(x, 4)
    assert windows.shape == (2 * 6, 16, 1)
    assert torch.equal(windows[1].view(4, 4), x[0, :4, 4:8, 0])
    assert torch.equal(from_windows(windows, 4, 8, 12), x)


@pytest.mark.parametrize(
    ("shifted", "pixel", "reach"),
    [
        (False, (5, 2), (slice(4, 8), slice(0, 4))),
        (True, (5, 2), (slice(2, 6), slice(2, 6))),
        (True, (0, 0), (slice(0, 2), slice(0, 2))),  # cut off by the border, and not wrapped
        (True, (11, 5), (slice(10, 12), slice(2, 6))),
    ],
)
def test_a_pixel_is_seen_in_its_window_alone(shifted, pixel, reach):
    torch.manual_seed(0)
    layer = SwinLayer(width=6, heads=2, window=4, expansion=2, shifted=shifted).double()
    x = torch.rand(1, 12, 12, 6, dtype=torch.float64)
    other = x.clone()
    other[0, pixel[0], pixel[1]] = torch.rand(6, dtype=torch.float64)
    changed = ((layer(other) - layer(x)).abs().sum(-1) > 1e-9)[0]
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[reach] = True
    assert torch.equal(changed, expected)


def test_swinir_adds_a_bias_for_each_offset():
    layer = SwinLayer(width=6, heads=2, window=4, expansion=2, shifted=False)
    index = layer.attention.index
    assert index.unique().numel() == 7 * 7
    assert index[0, 5] == index[5, 10] != index[5, 0]  # one down and one to the right, and back


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 7, "heads": 2}, "multiple of heads"), ({"window": 3}, "must be even, not 3")],
)
def test_impossible_forms_of_swinir_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        SwinIR(**options)


@EACH
def test_onnx_export_agrees_at_another_size(network, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    generator = network(**SMALL[network]).eval()
    export_onnx(generator, tmp_path / "net.onnx")
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    lr = torch.rand(1, 1, 11, 14)
    found = session.run(None, {session.get_inputs()[0].name: lr.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), generator(lr), atol=1e-4, rtol=1e-3)
