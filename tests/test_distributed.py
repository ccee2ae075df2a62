"""Two processes train as one does with the whole batch, stop together and go on together."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import time

import pytest
import torch
from torch import nn

from srgan_lib import runs
from srgan_lib.architectures import Discriminator, SRResNet
from srgan_lib.checkpoints import load_weights, save_weights
from srgan_lib.pretrained import load_network
from srgan_lib.recipes import check_recipe
from srgan_lib.runs import read_metrics, train
from srgan_lib.training import AdversarialStage, ContentStage

# Forked from a process that has imported all and computed nothing: they start at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["srgan_lib.runs", "torch.utils.tensorboard"])

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 3  # an epoch


@pytest.fixture(scope="module")
def make(noise_images):
    def recipe(stage="content", dice=False, **changes):
        content = {
            "stage": stage,
            "data": {"name": str(noise_images), "crop_size": 32, "variation": {}},
            "generator": {"blocks": 1, "width": 4, "batch_norm": False, "end_kernel": 3},
            "epochs": 2,
            "crops_per_epoch": 4 * STEPS,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "precision": "no",
        }
        if stage == "adversarial":
            layers = {"relu1_1": 0.5, "relu1_2": 1.0}
            content["discriminator"] = {"width": 4, "grid": 1}
            content["loss"] = {"network": "vgg16", "weights": "shipped", "layers": layers}
        if dice:
            content["generator"] |= {"noise": True}
            content["discriminator"] = {"network": "PatchDiscriminator", "width": 4}
            content["loss"] |= {"content": "ranked", "game": "paired", "consistency_weight": 10}
            content["loss"] |= {"adversarial_weight": 0.1, "perceptual_every": 2}
            content |= {"penalty_weight": 0.01}
        return check_recipe(content | changes)

    return recipe


class PlainDiscriminator(Discriminator, named=False):
    """A discriminator without batch norm, which is the one thing that depends on the share."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        for place, layer in enumerate(self.features):
            if isinstance(layer, nn.BatchNorm2d):
                self.features[place] = nn.Identity()


# What a test lets go wrong, or be otherwise, in a process; each takes the process's number.


def without_batch_norm(rank):
    runs.DISCRIMINATORS["Discriminator"] = PlainDiscriminator


def second_process_s_clock_runs_ahead(rank):
    if rank == 1:
        real, started = time.monotonic, time.monotonic()
        runs.time.monotonic = lambda: started + 1e6 * (real() - started)


def second_process_may_not_write(rank):
    if rank == 1:

        def refuse(*_):
            raise AssertionError("the second process wrote a file")

        for name in ("write_atomically", "write_image", "save_state", "save_weights"):
            setattr(runs, name, refuse)


def second_process_sees_nan(rank):
    if rank == 1:
        real = ContentStage.step
        ContentStage.step = lambda *arguments: {
            name: value * float("nan") for name, value in real(*arguments).items()
        }


def second_process_is_told_to_stop(rank):
    if rank == 1:
        real, count = ContentStage.step, iter(range(100))

        def step(*arguments):
            if next(count) == 1:
                signal.raise_signal(signal.SIGTERM)
            return real(*arguments)

        ContentStage.step = step


def disk_is_full_after_an_epoch(rank):
    real = os.fsync

    def full(descriptor):
        if "metrics" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    os.fsync = full


def work(rank, port, recipe, folder, results, prepare, options):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    for change in prepare:
        change(rank)
    real = runs._Run.close

    def close(run):
        real(run)
        save_weights(run.stage.generator.plain, results / f"generator{rank}.safetensors")
        if isinstance(run.stage, AdversarialStage):
            save_weights(run.stage.discriminator.plain, results / f"critic{rank}.safetensors")

    runs._Run.close = close
    try:
        result = train(recipe, folder, device="cpu", progress=False, **options)
    except BaseException as error:
        result = f"{type(error).__name__}: {error}"
    (results / f"{rank}.json").write_text(json.dumps(result))
    # A process that has failed leaves at once, as it would under a launcher.
    os._exit(0)


@pytest.fixture
def two(tmp_path):
    """Return a function that trains with two processes and returns what each returned."""

    def start(recipe, folder, *prepare, **options):
        results = tmp_path / "results"
        results.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = [
            PROCESSES.Process(
                target=work, args=(rank, port, recipe, folder, results, prepare, options)
            )
            for rank in range(2)
        ]
        for process in started:
            process.start()
        end = time.monotonic() + 60
        for process in started:
            process.join(max(end - time.monotonic(), 0))
        hung = [process for process in started if process.exitcode is None]
        for process in hung:
            process.kill()
        assert not hung, "a process waits for the other for ever"
        return [json.loads((results / f"{rank}.json").read_text()) for rank in range(2)]

    return start


def alone(recipe, folder, **options):
    return train(recipe, folder, device="cpu", progress=False, **options)


def weights(path, network=None):
    network = network or SRResNet(blocks=1, width=4, batch_norm=False, end_kernel=3)
    load_weights(network, path)
    return {name: value.detach() for name, value in network.named_parameters()}


def assert_close(one, other):
    assert one.keys() == other.keys()
    for name in one:
        # Two orders of one sum differ in the last bits; a step of Adam is 1e-3.
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=2e-5, msg=name)


def test_two_processes_train_stage_one_as_one_does_with_the_whole_batch(two, make, tmp_path):
    assert alone(make(), tmp_path / "one")
    assert two(make(), tmp_path / "two", second_process_may_not_write) == [True, True]
    folders = [tmp_path / name for name in ("one", "two")]
    assert_close(*(weights(folder / "generator.safetensors") for folder in folders))
    one, other = (read_metrics(folder) for folder in folders)
    for line, twin in zip(one, other, strict=True):
        # the loss is that of both halves, and no epoch is written twice
        assert twin["losses"]["content"] == pytest.approx(line["losses"]["content"], rel=1e-4)
        assert twin["validation"]["psnr"] == pytest.approx(line["validation"]["psnr"], abs=1e-3)
    assert json.loads((folders[1] / "environment.json").read_text())["processes"] == 2
    files = [{path.name for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]
    assert len(list((folders[1] / "tensorboard").iterdir())) == 1
    start = weights_at_start(make())
    moved = weights(folders[1] / "generator.safetensors")
    assert any((moved[name] - start[name]).abs().max() > 1e-3 for name in start)


def weights_at_start(recipe):
    torch.manual_seed(recipe.seed)
    return {name: value.detach() for name, value in runs.build_generator(recipe).named_parameters()}


def test_stage_two_without_batch_norm_is_the_same_for_two_processes_as_for_one(
    two, make, tmp_path, monkeypatch
):
    recipe = make("adversarial")
    monkeypatch.setitem(runs.DISCRIMINATORS, "Discriminator", PlainDiscriminator)
    assert alone(recipe, tmp_path / "one")
    assert two(recipe, tmp_path / "two", without_batch_norm) == [True, True]
    for name, network in [("generator", None), ("discriminator", PlainDiscriminator(1, 4, 1))]:
        file = f"{name}.safetensors"
        found = [weights(tmp_path / folder / file, network) for folder in ("one", "two")]
        assert_close(*({n: v.clone() for n, v in one.items()} for one in found))
    one, other = (read_metrics(tmp_path / folder) for folder in ("one", "two"))
    for line, twin in zip(one, other, strict=True):
        assert twin["losses"] == pytest.approx(line["losses"], rel=1e-3)


def test_two_processes_throw_the_dice_that_one_throws(two, make, tmp_path):
    recipe = make("adversarial", dice=True)
    assert alone(recipe, tmp_path / "one")
    assert two(recipe, tmp_path / "two") == [True, True]
    for name in ("generator", "discriminator"):
        found = [
            {
                n: v.clone()
                for n, v in load_network(tmp_path / folder / f"{name}.safetensors")
                .state_dict()
                .items()
            }
            for folder in ("one", "two")
        ]
        assert_close(*found)
    gains = [value for key, value in found_gains(tmp_path / "two").items()]
    assert all(gain.abs().max() > 1e-4 for gain in gains)  # dice do something
    one, other = (read_metrics(tmp_path / folder) for folder in ("one", "two"))
    for line, twin in zip(one, other, strict=True):
        # the spread is a root of a mean, so that of both halves is not quite that of the whole
        assert twin["losses"].pop("spread") == pytest.approx(line["losses"].pop("spread"), rel=0.05)
        assert twin["losses"] == pytest.approx(line["losses"], rel=2e-3, abs=1e-5)


def found_gains(folder):
    state = load_network(folder / "generator.safetensors").state_dict()
    return {name: value for name, value in state.items() if name.startswith("noise.")}


def test_stage_two_with_batch_norm_keeps_both_processes_in_step(two, make, tmp_path):
    """Batch norm sees half a batch in each process: SyncBatchNorm, which would join the halves,
    needs GPUs. So one process and two differ; what must hold is that gradients are shared, that
    is, that both processes keep the same weights. Batch norm's running statistics are each
    process's own, have no part in training, and those of the main process are saved.
    """
    recipe = make("adversarial")
    assert two(recipe, tmp_path / "two", second_process_may_not_write) == [True, True]
    results = tmp_path / "results"
    for name in ("generator", "critic"):
        network = None if name == "generator" else Discriminator(1, 4, 1)
        found = [
            {
                n: v.clone()
                for n, v in weights(results / f"{name}{rank}.safetensors", network).items()
            }
            for rank in range(2)
        ]
        assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    critic = Discriminator(1, 4, 1)
    load_weights(critic, tmp_path / "two" / "discriminator.safetensors")
    saved = {n: v.clone() for n, v in critic.state_dict().items()}
    load_weights(critic, results / "critic0.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in critic.state_dict().items())


@pytest.mark.parametrize("stage", ["content", "adversarial", "dice"])
def test_two_processes_that_were_stopped_end_in_the_same_bits(two, make, tmp_path, stage):
    recipe = make("adversarial" if stage == "dice" else stage, dice=stage == "dice", epochs=1)
    assert two(recipe, tmp_path / "whole") == [True, True]
    calls = 0
    while two(recipe, tmp_path / "parts", time_budget=0) == [False, False]:
        calls += 1
    assert calls == STEPS - 1
    for path in (tmp_path / "whole").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes(), path.name
    one, other = (read_metrics(tmp_path / folder) for folder in ("whole", "parts"))
    assert other[0]["losses"] == pytest.approx(one[0]["losses"], rel=1e-6)
    assert other[0]["validation"] == one[0]["validation"]


def test_one_process_can_go_on_where_two_stopped(two, make, tmp_path):
    assert two(make(), tmp_path / "run", time_budget=0) == [False, False]
    assert alone(make(), tmp_path / "run")
    assert alone(make(), tmp_path / "one")
    assert_close(*(weights(tmp_path / name / "generator.safetensors") for name in ("run", "one")))


@pytest.mark.parametrize("options", [{"time_budget": 100.0}, {"checkpoint_every": 100.0}])
def test_clocks_that_disagree_lead_to_one_decision(two, make, tmp_path, options):
    names = []
    found = two(make(), tmp_path, second_process_s_clock_runs_ahead, **options)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    if "time_budget" in options:
        assert found == [False, False]
        assert names == ["0000-000001.safetensors"]
    else:
        assert found == [True, True]
        assert names[0] == f"0001-{STEPS - 1:06d}.safetensors"  # one was written at each step


# Failures of one process end both, soon and with words


def test_main_process_that_may_not_use_the_folder_does_not_leave_the_other_waiting(
    two, make, tmp_path
):
    assert not alone(make(), tmp_path / "run", time_budget=0)
    found = two(make(learning_rate=5e-4), tmp_path / "run")
    assert found[0].startswith("ConfigurationError: ") and "learning_rate is 0.001" in found[0]
    assert found[1] == "SRGANError: The main process has stopped; its message says why."
    with open(tmp_path / "run" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = two(make(), tmp_path / "run")
    assert found[0].startswith("ConfigurationError: Another program is training into")
    assert found[1].startswith("SRGANError: The main process has stopped")
    assert two(make(), tmp_path / "run") == [True, True]


def test_full_disk_of_the_main_process_ends_both(two, make, tmp_path):
    found = two(make(), tmp_path, disk_is_full_after_an_epoch)
    assert found[0].startswith("SRGANError: Could not write") and "no space is left" in found[0]
    assert found[1].startswith("SRGANError: The main process has stopped")


def test_loss_that_is_not_finite_in_one_process_ends_both(two, make, tmp_path):
    for words in two(make(), tmp_path, second_process_sees_nan):
        assert words.startswith("SRGANError: The content loss is no longer finite in epoch 1")


def test_signal_to_one_process_stops_both_after_saving(two, make, tmp_path):
    found = two(make(), tmp_path, second_process_is_told_to_stop)
    assert found == [False, f"KeyboardInterrupt: stopped by signal {signal.SIGTERM}, after saving"]
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == ["0000-000002.safetensors"]


def test_damaged_checkpoint_is_passed_over_by_both(two, make, tmp_path):
    for _ in range(2):
        two(make(), tmp_path, time_budget=0)
    newest = tmp_path / "checkpoints" / "0000-000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert two(make(), tmp_path, time_budget=0) == [False, False]
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [
        "0000-000001.safetensors",
        "0000-000002.damaged",
        "0000-000002.safetensors",
    ]


def test_batch_that_two_processes_can_not_share_is_refused_by_both(two, make, tmp_path):
    recipe = make(batch_size=1, crops_per_epoch=4)
    for words in two(recipe, tmp_path):
        assert "batch_size (1) must be a multiple of the number of processes (2)" in words
