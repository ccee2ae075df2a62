"""Neighbour embedding, against combinations by hand and SciPy's solver, patch by patch."""

from importlib.resources import files

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import nnls

from srgan_lib.architectures import Interpolation
from srgan_lib.architectures.neighbour_embedding import NeighbourEmbedding
from srgan_lib.checkpoints import load_weights, save_weights
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import degrade, quantise, resize
from srgan_lib.errors import ConfigurationError, ImageError, SRGANError
from srgan_lib.metrics import psnr

SHIPPED = files("srgan_lib") / "weights" / "neighbour_embedding.safetensors"


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def filled(channels=1, scale=2, patch=3, neighbours=4, examples=30, seed=0):
    """Return an embedding with random examples."""
    embedding = NeighbourEmbedding(channels, scale, patch, neighbours, examples)
    low = noise(*embedding.low.shape, seed=seed) - 0.5
    embedding.low.copy_(low - low.mean(1, keepdim=True))
    embedding.high.copy_(noise(*embedding.high.shape, seed=seed + 1) - 0.5)
    return embedding


# The combination


@pytest.fixture
def tiny():
    """Four examples whose first, a horizontal edge, and second, a vertical one, are orthogonal."""
    embedding = NeighbourEmbedding(1, 2, 3, neighbours=4, examples=4)
    across = torch.tensor([[1.0, 1, 1], [0, 0, 0], [-1, -1, -1]])
    spot = torch.full((3, 3), -1 / 8)
    spot[1, 1] = 1
    far = torch.tensor([[-1.0, 0, 1], [0, 0, 0], [1, 0, -1]])
    for index, edge in enumerate((across, across.T, spot, far)):
        embedding.low[index] = edge.flatten()
        embedding.high[index] = index + torch.arange(36.0)
    return embedding


def test_a_positive_combination_is_reproduced(tiny):
    blend = tiny.blend((2 * tiny.low[0] + 0.5 * tiny.low[1])[None])[0]
    torch.testing.assert_close(blend, 2 * tiny.high[0] + 0.5 * tiny.high[1])


def test_no_weight_is_negative(tiny):
    # Of an edge and the opposite of an orthogonal one, only the edge is left.
    blend = tiny.blend((2 * tiny.low[0] - 0.5 * tiny.low[1])[None])[0]
    torch.testing.assert_close(blend, 2 * tiny.high[0])
    assert not tiny.blend(-tiny.low[:1]).any()


def test_only_the_nearest_are_combined(tiny):
    tiny.neighbours = 1
    blend = tiny.blend((2 * tiny.low[0] + 0.5 * tiny.low[1])[None])[0]
    torch.testing.assert_close(blend, 2 * tiny.high[0])


@pytest.mark.parametrize(("scale", "patch"), [(2, 3), (3, 1), (4, 5)])
def test_image_is_that_of_a_loop_over_its_patches(scale, patch):
    embedding = filled(scale=scale, patch=patch)
    low, high = embedding.low.double().numpy(), embedding.high.double().numpy()
    lr = noise(1, 1, 6, 5)
    height, width = lr.shape[-2:]
    border, side = patch - 1, patch * scale
    padded = np.pad(lr[0, 0].double().numpy(), border, mode="edge")
    total = np.zeros((padded.shape[0] * scale, padded.shape[1] * scale))
    for row in range(height + border):
        for column in range(width + border):
            part = padded[row : row + patch, column : column + patch].flatten()
            feature = part - part.mean()
            near = np.argsort(((low - feature) ** 2).sum(1))[: embedding.neighbours]
            weights, _ = nnls(low[near].T, feature)
            assert (weights >= 0).all()
            sr = (weights @ high[near]).reshape(side, side) + part.mean()
            total[row * scale : row * scale + side, column * scale : column * scale + side] += sr
    cut = slice(border * scale, total.shape[0] - border * scale)
    cut = cut, slice(border * scale, total.shape[1] - border * scale)
    mean = torch.from_numpy(total[cut] / patch**2).float()[None, None]
    wanted = mean + resize(lr - resize(mean, lr.shape[-2:]), mean.shape[-2:])
    torch.testing.assert_close(embedding(lr), wanted, atol=1e-5, rtol=1e-5)


def test_a_flat_image_stays_flat():
    torch.testing.assert_close(
        filled()(torch.full((1, 1, 5, 4), 0.3)), torch.full((1, 1, 10, 8), 0.3)
    )


# Forms and inputs


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 5)])
def test_output_is_scale_times_as_large_at_any_size(channels, scale, size):
    found = filled(channels, scale)(noise(2, channels, *size))
    assert found.shape == (2, channels, size[0] * scale, size[1] * scale)
    assert torch.isfinite(found).all() and found.std() > 0


def test_images_of_a_batch_and_their_channels_are_enlarged_alone():
    lr = noise(2, 3, 6, 5)
    grey, batch = filled(1), filled(3)(lr)
    for image, sr in zip(lr, batch, strict=True):
        for channel, plane in zip(image, sr, strict=True):
            torch.testing.assert_close(grey(channel[None, None])[0, 0], plane)


def test_there_is_no_gradient_and_the_type_stays():
    assert not filled()(noise(1, 1, 4, 4).requires_grad_()).requires_grad
    half = filled().bfloat16()(noise(1, 1, 4, 4).bfloat16())
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize(("scale", "patch"), [(2, 3), (3, 3), (4, 3), (4, 5)])
def test_receptive_radius_is_as_far_as_a_pixel_reaches(scale, patch):
    embedding = filled(scale=scale, patch=patch)
    radius = embedding.receptive_radius
    lr, row, column = noise(1, 1, 26, 25), 12, 13
    other = lr.clone()
    other[..., row, column] = 1 - other[..., row, column]
    moved = (embedding(lr) != embedding(other))[0, 0].float()
    cells = F.max_pool2d(moved[None], scale)[0].nonzero()
    away = (cells - torch.tensor([row, column])).abs().amax()
    assert away == radius


def test_an_untrained_one_says_so():
    with pytest.raises(SRGANError, match="has no examples; fit it or load weights"):
        NeighbourEmbedding(examples=20)(noise(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 2}, "channels must be 1 or 3, not 2"),
        ({"scale": 8}, "scale must be 2, 3 or 4, not 8"),
        ({"patch": 4}, "patch must be odd, not 4"),
        ({"patch": -1}, "patch must be positive"),
        ({"neighbours": 0}, "neighbours must be positive"),
        ({"examples": 0}, "examples must be positive"),
        ({"neighbours": 9, "examples": 8}, "8 examples don't hold 9 neighbours"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        NeighbourEmbedding(**arguments)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 8, 8), (8, 8)])
def test_wrong_inputs_are_refused(shape):
    with pytest.raises(ImageError, match=r"NeighbourEmbedding takes \(N, 1, H, W\)"):
        filled()(torch.zeros(shape))


def test_nan_is_refused():
    with pytest.raises(ImageError, match="not finite"):
        filled()(torch.full((1, 1, 4, 4), torch.nan))
    with pytest.raises(ImageError, match="not finite"):
        filled().fit([torch.full((1, 40, 40), torch.nan)])


# Fitting


def fitted(seed=0, images=None, **arguments):
    arguments = {"examples": 50, "neighbours": 5, **arguments}
    images = [noise(1, 64, 50, seed=5), noise(1, 48, 64, seed=6)] if images is None else images
    return NeighbourEmbedding(**arguments).fit(images, seed)


def test_fit_depends_on_the_seed_alone():
    first, again, other = fitted(0), fitted(0), fitted(1)
    for name in ("low", "high"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_integers_are_fitted_as_their_fractions():
    images = [(noise(1, 64, 64, seed=seed) * 255).to(torch.uint8) for seed in (1, 2)]
    whole, fraction = fitted(images=images), fitted(images=[image / 255 for image in images])
    assert torch.equal(whole.low, fraction.low) and torch.equal(whole.high, fraction.high)


def test_colour_images_are_fitted_channel_by_channel():
    colour = noise(3, 64, 64)
    grey = fitted(images=list(colour[:, None]))
    assert torch.equal(grey.low, fitted(images=[colour], channels=3).low)


def test_examples_are_mean_pairs_of_lr_and_hr():
    """As many clusters as patches of their own: each pair comes back as it is."""
    hr = quantise(noise(1, 20, 20))
    embedding = NeighbourEmbedding(scale=4, neighbours=1, examples=9).fit([hr])
    lr = degrade(hr, 4)
    pairs = set()
    for row in range(3):
        for column in range(3):
            low = lr[0, row : row + 3, column : column + 3]
            high = hr[0, 4 * row : 4 * row + 12, 4 * column : 4 * column + 12]
            distance = (embedding.low - (low - low.mean()).flatten()).abs().amax(1)
            assert distance.min() < 1e-6
            pairs.add(int(distance.argmin()))
            torch.testing.assert_close(
                embedding.high[distance.argmin()], (high - low.mean()).flatten()
            )
    assert len(pairs) == 9


def test_images_that_cannot_be_fitted_are_refused():
    for images, message in (
        ([], "0 patches are too few for 50 examples"),
        ([noise(1, 16, 16)], "4 patches are too few for 50 examples"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            fitted(images=images)
    for image, message in (
        (noise(3, 64, 64), r"fit takes images \(1, H, W\), not \(3, 64, 64\)"),
        (noise(64, 64), "fit takes images"),
        (noise(1, 64, 11), "64 x 11 pixels are no whole patch"),
        (noise(1, 64, 3), "too small"),
    ):
        with pytest.raises(ImageError, match=message):
            fitted(images=[image])


# Weights


def test_weights_are_saved_and_loaded(tmp_path):
    embedding, path = filled(), tmp_path / "examples.safetensors"
    save_weights(embedding, path)
    again = NeighbourEmbedding(**embedding.arguments)
    load_weights(again, path)
    lr = noise(1, 1, 6, 5)
    assert torch.equal(again(lr), embedding(lr))


def test_shipped_examples_beat_bicubic_interpolation():
    embedding = NeighbourEmbedding()
    load_weights(embedding, SHIPPED)
    assert SHIPPED.stat().st_size <= 2e6
    for image in open_dataset("sample", width=640):
        hr = quantise(image[:, 200:328, 240:368])
        lr = degrade(hr)[None]
        better, bicubic = (
            psnr(quantise(method(lr)[0]), hr) for method in (embedding, Interpolation())
        )
        assert better > bicubic + 0.1
