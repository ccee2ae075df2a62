"""Recipes: what is read is what was meant, or the message says which key is wrong, and how."""

import inspect
import pickle
from pathlib import Path

import pytest
import torch
import yaml

from srgan_lib.architectures import GENERATORS, Discriminator, PatchDiscriminator
from srgan_lib.errors import ConfigurationError
from srgan_lib.losses import GeneratorLoss
from srgan_lib.recipes import Recipe, check_recipe, read_recipe, write_recipe
from srgan_lib.runs import build_discriminator

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(ROOT.glob("recipes/*.yaml")) + sorted(ROOT.glob("srgan_lib/recipes/*.yaml"))


def content(**changes):
    return {"stage": "content", "crops_per_epoch": 160} | changes


def adversarial(**changes):
    parts = {"stage": "adversarial", "crops_per_epoch": 160, "discriminator": {}, "loss": {}}
    return parts | changes


def swinir(**arguments):
    return content(generator={"network": "SwinIR", **arguments})


def refusal(recipe):
    with pytest.raises(ConfigurationError) as caught:
        check_recipe(recipe)
    return str(caught.value)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


# Reading and writing


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_this_repository_read_and_come_back_the_same(path, tmp_path):
    recipe = read_recipe(path)
    assert read_recipe(write(tmp_path / "copy.yaml", write_recipe(recipe))) == recipe


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_networks_of_recipes_can_be_built(path):
    recipe = read_recipe(path)
    with torch.device("meta"):
        network = GENERATORS[recipe.generator.network](
            channels=recipe.data.channels, **recipe.generator.arguments
        )
    made = {"channels": recipe.data.channels, **recipe.generator.model_dump(mode="json")}
    assert {"network": type(network).__name__, **network.arguments} == made


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_discriminators_and_losses_of_recipes_can_be_built(path):
    recipe = read_recipe(path)
    if recipe.stage == "content":
        assert recipe.discriminator is recipe.loss is None
        return
    judge = build_discriminator(recipe)
    size, scale = recipe.data.crop_size, recipe.generator.scale
    images = torch.zeros(2, recipe.data.channels, size, size)
    lr = torch.zeros(2, recipe.data.channels, size // scale, size // scale)
    seen = (images, lr) if isinstance(judge, PatchDiscriminator) else (images,)
    assert judge(*seen).shape[:2] == (2, 1)
    made = {"channels": recipe.data.channels, **recipe.discriminator.arguments}
    assert made.items() <= judge.arguments.items()
    names = set(recipe.loss.model_dump()) - {"network", "weights"}
    assert names == set(inspect.signature(GeneratorLoss).parameters) - {"features"}


@pytest.mark.parametrize(
    ("part", "kind", "arguments"),
    [
        ({}, Discriminator, {"channels": 1, "width": 64, "grid": 6}),
        ({"grid": 1, "width": 4}, Discriminator, {"channels": 1, "width": 4, "grid": 1}),
        (
            {"network": "PatchDiscriminator", "width": 8},
            PatchDiscriminator,
            {"channels": 1, "width": 8, "scale": 2, "bits": 8},
        ),
    ],
)
def test_discriminator_is_the_named_one_for_the_generator_s_scale(part, kind, arguments):
    recipe = check_recipe(adversarial(discriminator=part, generator={"scale": 2}))
    judge = build_discriminator(recipe)
    assert type(judge) is kind and judge.arguments == arguments


def test_every_generator_s_form_comes_from_its_constructor():
    for name, network in GENERATORS.items():
        part = check_recipe(content(generator={"network": name})).generator
        with torch.device("meta"):
            default = network().arguments
        assert {"network": name, **default} == {"channels": 1, **part.model_dump(mode="json")}


@pytest.mark.parametrize(
    "changes",
    [
        content(),
        content(precision="no", start_from="a/b: #c.safetensors", pixel_loss="l1"),
        content(learning_rate=1e-10, average_decay=0, schedule="cosine", seed=2**62),
        content(data={"name": "Ünï – ødd", "smaller": [0.5, 1 / 3], "variation": {"smooth": 0.1}}),
        adversarial(loss={"layers": {"relu5_4": 1e-7, "relu1_2": 3}}),
        adversarial(
            discriminator={"network": "PatchDiscriminator", "width": 32},
            generator={"noise": True},
            loss={"game": "paired", "content": "ranked", "perceptual_every": 4},
            betas=[0, 0.99],
            penalty_weight=1e-4,
        ),
    ],
)
def test_what_is_written_reads_as_the_same_recipe(changes, tmp_path):
    recipe = check_recipe(changes)
    text = write_recipe(recipe)
    assert read_recipe(write(tmp_path / "r.yaml", text)) == recipe
    assert set(yaml.safe_load(text)) == set(Recipe.model_fields)  # with all defaults


def test_defaults_are_the_paper_s_where_it_has_them():
    recipe = check_recipe(adversarial())
    assert (recipe.batch_size, recipe.learning_rate, recipe.data.crop_size) == (16, 1e-4, 96)
    assert recipe.generator.model_dump() == {
        "network": "SRResNet",
        "scale": 4,
        "blocks": 16,
        "width": 64,
        "batch_norm": True,
        "bicubic_skip": False,
        "end_kernel": 9,
        "noise": False,
    }
    assert recipe.loss.layers == {"relu5_4": 1.0} and recipe.loss.adversarial_weight == 1e-3
    assert (recipe.loss.game, recipe.loss.content) == ("standard", "mse")
    assert (recipe.betas, recipe.penalty_weight) == ((0.9, 0.999), 0)
    assert recipe.discriminator.network == "Discriminator"
    assert recipe.discriminator.arguments == {"width": 64}


def test_steps_follow_from_crops_and_epochs():
    recipe = check_recipe(content(crops_per_epoch=96, batch_size=8, epochs=5))
    assert (recipe.steps_per_epoch, recipe.steps) == (12, 60)


def test_a_recipe_can_not_be_changed():
    with pytest.raises(Exception, match="frozen"):
        check_recipe(content()).epochs = 3


# Traps of YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [("4e-4", 4e-4), ("4.0e-4", 4e-4), ("0.0004", 4e-4), ('"4e-4"', 4e-4), ("1E-3", 1e-3)],
)
def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path, text, value):
    path = write(
        tmp_path / "r.yaml", f"stage: content\ncrops_per_epoch: 160\nlearning_rate: {text}\n"
    )
    assert read_recipe(path).learning_rate == value


def test_no_without_quotes_is_the_precision_not_false(tmp_path):
    for text in ("no", "'no'", "No"):
        path = write(
            tmp_path / "r.yaml", f"stage: content\ncrops_per_epoch: 160\nprecision: {text}\n"
        )
        assert read_recipe(path).precision == "no"
    assert "at precision" in refusal(content(precision=True))


@pytest.mark.parametrize(
    "name",
    [
        "batch_size",
        "epochs",
        "crops_per_epoch",
        "seed",
        "average_decay",
        "learning_rate",
        "data.width",
        "data.channels",
        "data.smaller.0",
        "data.variation.smooth",
        "data.variation.blur.0",
        "data.variation.weaker.1",
        "data.variation.stronger",
        "generator.scale",
        "generator.blocks",
        "warm_up",
        "betas.0",
        "penalty_weight",
        "loss.content_weight",
        "loss.consistency_weight",
        "loss.perceptual_every",
        "loss.layers.relu5_4",
        "discriminator.grid",
    ],
)
@pytest.mark.parametrize("value", [True, False])
def test_booleans_are_no_numbers(name, value):
    recipe = {
        "data": {"smaller": [0.5], "variation": {"blur": [0.5, 1], "weaker": [0.5, 1]}},
        "generator": {},
        "discriminator": {},
        "loss": {"layers": {"relu5_4": 1}},
        "betas": [0.9, 0.999],
    }
    recipe = adversarial(**recipe)
    check_recipe(recipe)
    *parts, last = name.split(".")
    place = recipe
    for part in parts:
        place = place[part]
    place[int(last) if last.isdigit() else last] = value
    words = refusal(recipe)
    assert f"at {name}: Input should be " in words and f"not {value}." in words


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['touch {}']", "!!python/name:os.system"]
)
def test_code_in_yaml_is_not_run(tmp_path, text):
    trace = tmp_path / "trace"
    path = write(tmp_path / "r.yaml", f"stage: {text.format(trace)}\ncrops_per_epoch: 16\n")
    with pytest.raises(ConfigurationError, match=r"r\.yaml is not YAML: .*python/"):
        read_recipe(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, r"Could not read the recipe .*r\.yaml: No such file"),
        (b"\xff\xfe\x00x", r"Could not read the recipe .*r\.yaml: .*decode"),
        (b"a: [1, 2", r"r\.yaml is not YAML"),
        (b"a: b: c", r"r\.yaml is not YAML"),
        (b"", "holds no keys with values"),
        (b"- a\n- b\n", "holds no keys with values"),
        (b"just words", "holds no keys with values"),
        (b"1: 2\n", r"at 1: Keys should be strings, not 1"),
    ],
)
def test_files_that_hold_no_recipe_are_named(tmp_path, data, words):
    if data is not None:
        (tmp_path / "r.yaml").write_bytes(data)
    with pytest.raises(ConfigurationError, match=words):
        read_recipe(tmp_path / "r.yaml")


def test_message_names_the_file(tmp_path):
    path = write(tmp_path / "r.yaml", "stage: content\ncrops_per_epoch: 0\n")
    with pytest.raises(ConfigurationError, match=r"The recipe .*r\.yaml, at crops_per_epoch: "):
        read_recipe(path)


# What is refused


@pytest.mark.parametrize(
    ("recipe", "place", "name", "near"),
    [
        (content(learning_rat=1e-4), "learning_rat", "learning_rat", "learning_rate"),
        (content(data={"crop_sise": 96}), "data.crop_sise", "crop_sise", "crop_size"),
        (content(data={"variation": {"smoth": 1}}), "data.variation.smoth", "smoth", "smooth"),
        ({"stage": "content", "crops": 2}, "crops", "crops", "crops_per_epoch"),
        (content(generator={"block": 2}), "generator.block", "block", "blocks"),
        (swinir(depth=2), "generator.depth", "depth", "depths"),
        (content(generator={"network": "IPT", "crops": 2}), "generator.crops", "crops", "crop"),
        (adversarial(discriminator={"wdth": 2}), "discriminator.wdth", "wdth", "width"),
        (adversarial(loss={"layer": {}}), "loss.layer", "layer", "layers"),
    ],
)
def test_unknown_key_is_named_with_its_place_and_the_nearest_known_one(recipe, place, name, near):
    words = refusal(recipe)
    assert words.startswith(f"The recipe, at {place}: Unknown key {name!r}.")
    assert f"Did you mean {near!r}?" in words


@pytest.mark.parametrize(
    ("recipe", "place", "rest"),
    [
        (adversarial(dither=1), "dither", "Did you mean 'data'?"),
        (content(interpolate=0.9), "interpolate", "Did you mean 'learning_rate'?"),
        (adversarial(loss={"texture_weight": 1}), "loss.texture_weight", "mean 'content_weight'?"),
        (adversarial(loss={"lattice_weight": 1}), "loss.lattice_weight", "mean 'content_weight'?"),
        (adversarial(loss={"texture_amount": 1}), "loss.texture_amount", "Known: network, "),
        (adversarial(loss={"jitter": 16}), "loss.jitter", "Known: network, "),
        (adversarial(loss={"relativistic": True}), "loss.relativistic", ", game."),
    ],
)
def test_key_of_an_earlier_version_is_unknown(recipe, place, rest):
    words = refusal(recipe)
    assert words.startswith(f"The recipe, at {place}: Unknown key {place.split('.')[-1]!r}.")
    assert rest in words


def test_unknown_network_is_named_with_the_nearest_known_one():
    words = refusal(content(generator={"network": "SwinR", "depths": [2]}))
    assert words.startswith("The recipe, at generator.network: Unknown network 'SwinR'.")
    assert "Did you mean 'SwinIR'? Known: DRCN, " in words


def test_message_about_a_part_as_a_whole_does_not_repeat_it():
    for recipe in (swinir(window=3), adversarial(loss={"layers": {}})):
        assert "{" not in refusal(recipe)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (content(batch_size=0), "at batch_size: .*greater than or equal to 1, not 0"),
        (content(batch_size=2.5), "at batch_size: .*integer.*, not 2.5"),
        (content(batch_size="many"), "at batch_size: .*integer.*, not 'many'"),
        (content(epochs=-1), "at epochs: "),
        (content(learning_rate=2), "at learning_rate: .*less than 1, not 2"),
        (content(learning_rate=0), "at learning_rate: .*greater than 0, not 0"),
        (content(learning_rate=float("nan")), "at learning_rate: .*finite"),
        (content(average_decay=1), "at average_decay: .*less than 1"),
        (content(seed=-1), "at seed: "),
        (content(seed=2**64), "at seed: "),
        (content(stage="three"), "at stage: .*'content' or 'adversarial', not 'three'"),
        (content(schedule="linear"), "at schedule: "),
        (content(precision="fp8"), "at precision: "),
        (content(generator={"scale": 3}), "at generator: scale must be 2, 4 or 8, not 3.$"),
        (content(generator=None), "at generator: .*dictionary of its arguments, not None.$"),
        (content(data={"channels": 2}), "at data.channels: .*1 or 3, not 2"),
        (content(data={"smaller": [0.5, 1.5]}), "at data.smaller.1: .*less than 1, not 1.5"),
        (content(data={"variation": {"blur": [0.3, 3]}}), "at data.variation.blur.1: "),
        (content(data={"variation": {"blur": 1}}), "at data.variation.blur: "),
        (
            content(data={"variation": {"weaker": [1, 0.5]}}),
            "at data.variation.weaker: .*first",
        ),
        (content(data={"variation": {"weaker": [0, 1]}}), "at data.variation.weaker.0: "),
        (content(data={"variation": {"stronger": float("inf")}}), "stronger: .*finite"),
        (content(data={"variation": {"stronger": 0.9}}), "at data.variation.stronger: "),
        (content(data={"variation": {"smooth": 1.1}}), "at data.variation.smooth: "),
        (content(data={"variation": {"mean": [0.5, 1.1]}}), "at data.variation.mean.1: "),
        (content(warm_up=3), "warm_up has no use in the content stage"),
        (content(penalty_weight=1), "penalty_weight has no use in the content stage"),
        (content(betas=[0, 0.99]), "betas has no use in the content stage"),
        (adversarial(warm_up=10**6), r"warm_up \(1000000\) must be less than the \d+ steps"),
        (adversarial(betas=[1, 0.99]), "at betas.0: .*less than 1, not 1"),
        (adversarial(betas=[0, 1]), "at betas.1: .*less than 1, not 1"),
        (adversarial(betas=[0.9]), "at betas.1: Field required"),
        (adversarial(penalty_weight=-1), "at penalty_weight: .*greater than or equal to 0, not -1"),
        (adversarial(loss={"game": "fair"}), "at loss.game: .*'paired', not 'fair'"),
        (adversarial(loss={"content": "l1"}), "at loss.content: .*'mse' or 'ranked', not 'l1'"),
        (adversarial(loss={"perceptual_every": 0}), "at loss.perceptual_every: .*1, not 0"),
        (adversarial(loss={"consistency_weight": -1}), "at loss.consistency_weight: .*0, not -1"),
        (adversarial(discriminator={"network": "VGG"}), "discriminator.network: .*not 'VGG'"),
        (
            adversarial(discriminator={"network": "PatchDiscriminator", "grid": 1}),
            "at discriminator: grid has no use in a PatchDiscriminator",
        ),
        (adversarial(warm_up=-1), "at warm_up: .*greater than or equal to 0, not -1"),
        (content(data={"name": 7}), "at data.name: .*string, not 7"),
        (content(data={"crop_size": 94}), r"data.crop_size \(94\) must be a multiple of .*\(4\)"),
        (content(generator={"end_kernel": 4}), "at generator: end_kernel must be odd, not 4.$"),
        (content(crops_per_epoch=100), r"crops_per_epoch \(100\) must be a multiple .*\(16\)"),
        (content(crops_per_epoch=8), r"crops_per_epoch \(8\) must be a multiple .*\(16\)"),
        ({"stage": "content"}, "at crops_per_epoch: Field required"),
        ({"crops_per_epoch": 16}, "at stage: Field required"),
        (content(discriminator={}), "discriminator has no use in the content stage"),
        (content(loss={}), "loss has no use in the content stage"),
        (content(discriminator_learning_rate=1e-4), "discriminator_learning_rate has no use"),
        (adversarial(pixel_loss="mse"), "pixel_loss has no use in the adversarial stage"),
        (adversarial(discriminator=None), "needs the part discriminator"),
        (adversarial(loss=None), "needs the part loss"),
        (adversarial(data={"crop_size": 28}), "data.crop_size of 32 or more"),
        (content(generator="SwinIR"), "at generator: .*dictionary .*, not 'SwinIR'.$"),
        (content(generator={"network": 3}), "at generator.network: Unknown network '3'. Known: D"),
        (content(generator={"network": None}), "at generator.network: Unknown network 'None'"),
        (swinir(depths=[2, True]), "at generator.depths.1: Input should be a number, not True.$"),
        (swinir(depths=[2, 2.5]), "at generator.depths.1: .*integer.*, not 2.5"),
        (swinir(depths=[2, 0]), r"at generator: depths must be positive, not \(2, 0\).$"),
        (swinir(depths=[]), r"at generator: depths must be positive, not \(\).$"),
        (swinir(scale=8), "at generator: scale must be 2, 3 or 4, not 8.$"),
        (swinir(channels=3), "at generator.channels: Unknown key 'channels'"),
        (swinir(end_kernel=3), "at generator.end_kernel: .*Known: network, scale, width, depths"),
        (content(generator={"network": "ESPCN", "widths": [8]}), "at generator.widths.1: .*requir"),
        (adversarial(loss={"layers": {"relu9_9": 1}}), "at loss: Unknown layer of vgg19 'relu9_9'"),
        (
            adversarial(loss={"network": "vgg16", "layers": {"relu5_4": 1}}),
            "Unknown layer of vgg16 'relu5_4'. Did you mean 'relu5_3'",
        ),
        (adversarial(loss={"layers": {}}), "layers must name a layer"),
        (adversarial(loss={"layers": {"relu5_4": -1}}), "at loss.layers.relu5_4: "),
        (adversarial(loss={"content_weight": float("inf")}), "at loss.content_weight: .*finite"),
        (
            adversarial(
                loss=dict.fromkeys(("content_weight", "perceptual_weight", "adversarial_weight"), 0)
            ),
            "at loss: Loss weights must be >= 0 and not all 0",
        ),
    ],
)
def test_impossible_values_are_refused_by_the_name_of_their_field(recipe, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        check_recipe(recipe)
    words = str(caught.value)
    assert len(words) < 400 and words.endswith(".") and not words.endswith("..")


def test_a_recipe_may_have_each_weight_that_the_loss_may_have():
    weights = dict.fromkeys(("content_weight", "perceptual_weight", "adversarial_weight"), 0)
    check_recipe(adversarial(loss=weights | {"consistency_weight": 1}))


@pytest.mark.parametrize("order", [("relu1_2", "relu3_1"), ("relu3_1", "relu1_2")])
def test_vgg_is_built_up_to_the_deepest_layer_in_whatever_order_they_stand(order):
    loss = check_recipe(adversarial(loss={"layers": dict.fromkeys(order, 1)})).loss
    assert loss.deepest == "relu3_1"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_travels_to_another_process(path: Path) -> None:
    recipe = read_recipe(path)
    assert pickle.loads(pickle.dumps(recipe)) == recipe
