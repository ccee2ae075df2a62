"""The networks before and after SRResNet, against the papers' counts and ideas."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srgan_lib import tiling
from srgan_lib.architectures import (
    DRCN,
    ESPCN,
    GENERATORS,
    IPT,
    SRCNN,
    Interpolation,
    RRDBNet,
    SRResNet,
    SwinIR,
)
from srgan_lib.architectures.swinir import SwinLayer, from_windows, to_windows
from srgan_lib.checkpoints import save_weights
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.export import export_onnx
from srgan_lib.pretrained import load_network
from srgan_lib.tiling import best_tile, choose_precision, receptive_radius, upscale_tiled

FORMS = {network: network.small for network in GENERATORS.values()}
SMALL = {network: form for network, form in FORMS.items() if network is not SRResNet}
SCALES = {network: network.offered_scales for network in SMALL}
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


def test_ipt_has_115_460_419_parameters_for_one_task():
    # The paper says 115.5 million. Patches are 3 x 3 pixels of 64 channels, 16 x 16 to a crop.
    dimension, tokens = 64 * 9, 16 * 16
    assert dimension == 576
    head = (9 * 3 * 64 + 64) + 4 * (25 * 64 * 64 + 64)
    tail = (9 * 64 * 256 + 256) + (9 * 64 * 3 + 3)
    attention, norm = 4 * dimension**2, 2 * dimension
    hidden = 4 * dimension
    feed_forward = (dimension * hidden + hidden) + (hidden * dimension + dimension)
    encoder = 2 * norm + attention + feed_forward
    decoder = 3 * norm + 2 * attention + feed_forward
    ends = dimension**2 + dimension + feed_forward
    by_hand = head + 2 * tokens * dimension + 12 * (encoder + decoder) + ends + tail
    with torch.device("meta"):
        assert count(IPT(channels=3, scale=2, scales=(2,))) == by_hand == 115_460_419


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
    if network is DRCN:  # all recursions start alike, so that their weights would not matter
        nn.init.normal_(generator.inference[0].weight, std=0.2)
    lr = torch.rand(2, 1, 8, 8)
    for scale in SCALES[network] if network is IPT else (generator.scale,):
        generator.scale = scale  # a task of the one network
        generator(lr).square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@EACH
def test_what_an_lr_pixel_moves_moves_with_it(network):
    """Convolutions promise that a shifted image is enlarged alike, away from the borders."""
    generator = network(scale=2, **SMALL[network]).eval().double()
    lr = torch.rand(1, 1, 72, 72, dtype=torch.float64)
    step = getattr(generator, "stride", 1)  # of windows and crops
    down, right = step, 2 * step
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
    with pytest.raises(ConfigurationError, match=r"scale must be .*4\)?, not 5"):
        network(scale=5)
    name = next(iter(SMALL[network]))
    with pytest.raises(ConfigurationError, match=f"{name} must be positive"):
        network(**{name: (0, 1) if name == "widths" else 0})


def test_srcnn_s_middle_kernel_is_odd():
    with pytest.raises(ConfigurationError, match="mapping_kernel must be odd, not 2"):
        SRCNN(mapping_kernel=2)


@pytest.mark.parametrize("network", [SRResNet, RRDBNet, SwinIR, IPT])
@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_skip_starts_as_bicubic_interpolation(network, scale):
    generator = network(scale=scale, bicubic_skip=True, **FORMS[network]).eval()
    lr = torch.rand(2, 1, 9, 13)
    with torch.no_grad():
        assert torch.equal(generator(lr), Interpolation("bicubic", scale)(lr))


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

    @torch.no_grad()
    def by_hand():
        bicubic = generator.bicubic(lr)
        state = generator.embedding(bicubic)
        images = []
        for _ in range(3):
            state = generator.inference(state)
            images.append(generator.reconstruction(state) + bicubic)
        return torch.stack(images)

    # All start alike, since the shared convolution begins by passing its state on.
    first, _, third = by_hand()
    torch.testing.assert_close(first, third)
    torch.testing.assert_close(generator(lr), first)
    with torch.no_grad():
        generator.average.copy_(torch.tensor([1.0, 0.0, 3.0]))
        nn.init.normal_(generator.inference[0].weight, std=0.2)
        sr, each = generator(lr, each=True)
        torch.testing.assert_close(each, by_hand())
        assert (each[0] - each[1]).abs().max() > 1e-4  # now they differ
        torch.testing.assert_close(sr, 0.25 * each[0] + 0.75 * each[2])


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


def ipt(**changes):
    torch.manual_seed(0)
    return IPT(**SMALL[IPT] | changes).eval().double()


def test_ipt_knows_its_task():
    generator, lr = ipt(scale=2), torch.rand(1, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before = generator(lr)
        generator.tasks["x3"] += 1
        assert torch.equal(generator(lr), before)
        generator.tasks["x2"][0] += 1  # not all alike, which the layers' keys and queries ignore
    assert (generator(lr) - before).abs().max() > 1e-4


def test_swinir_starts_as_the_authors_do():
    """Linear layers of deviation 0.02 without biases; torch's own would have 0.075."""
    torch.manual_seed(0)
    network = SwinIR(depths=(2, 2), bicubic_skip=True)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert len(linear) == 4 * 4
    for module in linear:
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not module.bias.any()
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any()
    bias = network.blocks[0]["layers"][0].attention.bias
    assert bias.std().item() == pytest.approx(0.02, rel=0.1)
    deep = network.deep.weight.std().item()
    assert deep == pytest.approx((3 * 9 * 60) ** -0.5, rel=0.05)  # torch's own
    assert not network.upsample[0].weight.any()


def test_ipt_starts_as_the_authors_do():
    """Positions and tasks are torch's embeddings there, of deviation 1."""
    torch.manual_seed(0)
    network = IPT(width=16, scales=(2, 4), patch=2, depth=1, heads=2, expansion=1, crop=24)
    for embedding in (network.positions, *network.tasks.values()):
        assert embedding.std().item() == pytest.approx(1, rel=0.05)
        assert embedding.mean().item() == pytest.approx(0, abs=0.05)


def test_ipt_learns_one_task_at_a_time():
    generator = ipt(scale=3)
    generator(torch.rand(1, 1, 8, 8, dtype=torch.float64)).square().mean().backward()
    idle = {name for name, parameter in generator.named_parameters() if parameter.grad is None}
    others = ("heads.x2", "heads.x4", "tasks.x2", "tasks.x4", "tails.x2", "tails.x4")
    assert idle == {name for name, _ in generator.named_parameters() if name.startswith(others)}
    assert {name.rsplit(".", 1)[0] for name in idle} >= {"heads.x2.0", "tasks", "tails.x4.0"}


def test_ipt_takes_the_mean_where_crops_overlap():
    generator = ipt(scale=2)
    lr = torch.rand(1, 1, 14, 20, dtype=torch.float64)  # 2 x 3 crops of 8, each 6 further
    with torch.no_grad():
        sr = generator(lr)
        crops = [[generator(lr[..., t : t + 8, s : s + 8]) for s in (0, 6, 12)] for t in (0, 6)]
    # A processor may add up a batch of six crops in another order than one crop: some 20 layers
    # of up to 100 terms round by 2e-16 each.
    close = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-12)
    close(sr[..., 16:28, 16:24], crops[1][1][..., 4:, 4:12])  # LR 8:14, 8:12
    pair = (crops[0][1][..., 12:, 4:12] + crops[1][1][..., :4, 4:12]) / 2
    close(sr[..., 12:16, 16:24], pair)  # LR 6:8, 8:12
    four = crops[0][1][..., 12:, 12:] + crops[0][2][..., 12:, :4]
    four = four + crops[1][1][..., :4, 12:] + crops[1][2][..., :4, :4]
    close(sr[..., 12:16, 24:28], four / 4)  # LR 6:8, 12:14


@pytest.mark.parametrize("overlap", [0, 3, 5, 7])
def test_ipt_s_crops_may_overlap_by_any_width(overlap):
    generator = ipt(scale=2, overlap=overlap)
    nearest = Interpolation("nearest", 2)
    for size in ((1, 1), (8, 9), (11, 19)):
        lr = torch.rand(2, 1, *size, dtype=torch.float64)
        crops = generator._cut(lr)
        enlarged = nearest(crops.flatten(0, 2)).unflatten(0, crops.shape[:3])
        sr = generator._join(enlarged)[..., : 2 * size[0], : 2 * size[1]]
        torch.testing.assert_close(sr, nearest(lr))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 4, "scales": (2, 3)}, r"one of scales \(2, 3\), not 4"),
        ({"scales": (2, 8)}, "scale must be 2, 3 or 4, not 8"),
        ({"heads": 3}, r"\(16\) must be a multiple of heads \(3\)"),
        ({"crop": 9}, r"crop \(9\) must be a multiple of patch \(2\)"),
        ({"overlap": 8}, r"more than overlap \(8\)"),
        ({"overlap": -1}, "must not be negative"),
    ],
)
def test_impossible_forms_of_ipt_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        IPT(**SMALL[IPT] | options)


# Enlarging in tiles


def lively(network, **arguments):
    """Return a generator in float64 in which each pixel within reach has a clear influence."""
    torch.manual_seed(0)
    generator = network(**FORMS[network] | arguments).eval().double()
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.2)
    return generator


def measured_radius(generator):
    """Return how far the gradient reaches from the cell of an LR pixel in any place of a window."""
    for parameter in generator.parameters():
        parameter.data.abs_().add_(0.01)  # all influences add up, so that none can cancel
    stride = getattr(generator, "stride", 1)
    size = 2 * (receptive_radius(generator) + stride) + 9
    lr = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    sr, reach = generator(lr), 0
    for place in range(stride):
        centre = size // 2 // stride * stride + place
        cell = slice(generator.scale * centre, generator.scale * (centre + 1))
        (gradient,) = torch.autograd.grad(sr[..., cell, cell].sum(), lr, retain_graph=True)
        for along in gradient[0, 0].nonzero().T:
            assert along.min() > 0 and along.max() < size - 1, "the image is too small to tell"
            reach = max(reach, int((along - centre).abs().max()))
    return reach


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        *((network, {"scale": s}) for network in (SRCNN, ESPCN, DRCN) for s in (2, 3, 4)),
        (SRCNN, {"mapping_kernel": 5}),
        (DRCN, {"recursions": 1}),
        (DRCN, {"recursions": 6, "scale": 3}),
        (RRDBNet, {"blocks": 1, "scale": 2}),
        (RRDBNet, {"blocks": 1, "bicubic_skip": True}),
        (SwinIR, {}),
        (SwinIR, {"depths": (3,), "window": 6, "bicubic_skip": True}),
        (SwinIR, {"depths": (1, 2), "window": 2, "scale": 3}),
        (IPT, {}),
        (IPT, {"overlap": 5, "bicubic_skip": True}),
        (IPT, {"overlap": 0, "scale": 3}),
        (IPT, {"crop": 2, "overlap": 1, "bicubic_skip": True}),
        (SRResNet, {}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_radius_is_the_measured_one(network, arguments):
    generator = lively(network, **arguments)
    assert measured_radius(generator) == receptive_radius(generator) == generator.receptive_radius


@pytest.mark.parametrize("network", GENERATORS.values(), ids=GENERATORS)
@pytest.mark.parametrize("tile", [3, 10, 24])
def test_tiled_is_whole(network, tile):
    arguments = {"blocks": 1} if network is RRDBNet else {}  # else it reaches over all the image
    if network in (SRResNet, RRDBNet, SwinIR, IPT):
        arguments["bicubic_skip"] = True
    generator = lively(network, scale=2, **arguments)
    height, width = (17, 22) if tile == 3 else (53, 46)
    lr = torch.rand(1, height, width, dtype=torch.float64)
    with torch.no_grad():
        whole = generator(lr[None])[0]
    found = upscale_tiled(generator, lr, tile=tile, precision="no")
    assert found.shape == whole.shape and whole.std() > 0.01
    assert (found - whole).abs().max() < 1e-6 * whole.abs().max().clamp(min=1)


def test_tiles_and_what_is_read_begin_where_windows_do():
    generator = lively(SwinIR, depths=(1,), scale=2)
    assert (generator.receptive_radius, generator.stride) == (7, 4)
    seen = []
    generator.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[-2:]))
    upscale_tiled(generator, torch.rand(1, 33, 4), tile=10, precision="no")  # tiles of 12
    assert seen == [(12 + 7, 4), (8 + 12 + 7, 4), (8 + 9, 4)]  # 8 is 7, rounded up


@pytest.mark.parametrize("network", GENERATORS.values(), ids=GENERATORS)
def test_best_tile_is_smaller_for_wider_networks(network):
    with torch.device("meta"):
        for precision in ("no", "bf16"):
            small, paper = network(**FORMS[network]), network()
            assert 32 <= best_tile(paper, precision) <= best_tile(small, precision) <= 1024
            assert small.working_width < paper.working_width


def test_bfloat16_is_chosen_for_what_adds_to_a_bicubic_image(monkeypatch):
    monkeypatch.setattr(tiling, "best_precision", lambda device: "bf16")
    assert choose_precision(DRCN(**SMALL[DRCN])) == "bf16"
    for network in (SRResNet, RRDBNet, SwinIR, IPT):
        assert choose_precision(network(bicubic_skip=True, **FORMS[network])) == "bf16"
    for network in (SRCNN, ESPCN, SRResNet, RRDBNet, SwinIR, IPT):  # these write the image itself
        assert choose_precision(network(**FORMS[network])) == "no"


@pytest.mark.parametrize("network", [DRCN, SRResNet, RRDBNet, SwinIR, IPT])
def test_bfloat16_leaves_the_bicubic_image_in_float32(network):
    skip = {} if network is DRCN else {"bicubic_skip": True}
    generator = network(**FORMS[network], **skip)
    if network is DRCN:
        nn.init.zeros_(generator.reconstruction[-1].weight)
        nn.init.zeros_(generator.reconstruction[-1].bias)
    lr = torch.rand(1, 11, 14)
    bicubic = Interpolation()(lr[None])[0]
    assert (upscale_tiled(generator, lr, precision="bf16") - bicubic).abs().max() < 1e-6


# Other programs


@EACH
def test_onnx_export_agrees_at_any_size(network, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    generator = network(**SMALL[network]).eval()
    export_onnx(generator, tmp_path / "net.onnx")
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    # Some of one window or crop and less; some of several, whole and not.
    for shape in ((1, 1, 1, 1), (2, 1, 3, 2), (1, 1, 4, 8), (3, 1, 8, 14), (1, 1, 11, 29)):
        lr = torch.rand(shape)
        found = session.run(None, {session.get_inputs()[0].name: lr.numpy()})[0]
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), generator(lr), atol=1e-5, rtol=1e-4)


def test_onnx_export_of_crops_larger_than_its_example(tmp_path):
    """The exporter traces a small image; what it sees there, one crop, must not become a rule."""
    runtime = pytest.importorskip("onnxruntime")
    generator = IPT(**SMALL[IPT] | {"crop": 20, "bicubic_skip": True}).eval()
    nn.init.normal_(generator.tails["x4"][-1].weight, std=0.1)
    export_onnx(generator, tmp_path / "net.onnx")
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    lr = torch.rand(1, 1, 21, 45)
    found = session.run(None, {"lr": lr.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), generator(lr), atol=1e-5, rtol=1e-4)
