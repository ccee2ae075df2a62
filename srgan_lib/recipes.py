"""Recipes: what a training run depends on, as a small YAML file that is checked when read."""

import inspect
import os
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from srgan_lib.architectures import DISCRIMINATORS, GENERATORS
from srgan_lib.architectures.checks import MOST
from srgan_lib.architectures.vgg import layer_names
from srgan_lib.errors import ConfigurationError, unknown_name
from srgan_lib.files import read_whole
from srgan_lib.losses import check_weights

MAX_BYTES = 2**16
"""Larger recipes are refused: nobody writes them, and to read one would take long."""


class _Loader(yaml.SafeLoader):
    """YAML without code and without aliases, a few of which can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it uses an alias (*name), which recipes can't hold; repeat it")
        return super().compose_node(parent, index)


def _no_boolean(value: Any) -> Any:
    """Refuse true and false where a number belongs: to Python they are 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    return value


_SHORT = reprlib.Repr()  # shows what stands in a wrong recipe, however long it is
_SHORT.maxstring = _SHORT.maxother = 200

_Int = Annotated[int, BeforeValidator(_no_boolean)]
_Float = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Positive = Annotated[_Int, Field(ge=1)]
Rate = Annotated[_Float, Field(gt=0, lt=1)]
Weight = Annotated[_Float, Field(ge=0)]
Share = Annotated[_Float, Field(ge=0, le=1)]
Decay = Annotated[_Float, Field(ge=0, lt=1)]
Contrast = Annotated[_Float, Field(gt=0, le=1)]
Sigma = Annotated[_Float, Field(ge=0.3, le=2)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VariationPart(_Part):
    """See :class:`srgan_lib.variation.Variation`."""

    smooth: Share = 0.2
    blur: tuple[Sigma, Sigma] = (0.5, 1.3)
    weaker: tuple[Contrast, Contrast] = (0.35, 0.65)
    stronger: Annotated[_Float, Field(ge=1)] = 1.4
    mean: tuple[Share, Share] = (0.25, 0.75)

    @field_validator("blur", "weaker", "mean")
    @classmethod
    def _ordered(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if limits[0] > limits[1]:
            raise ValueError("The smaller value comes first")
        return limits


class DataPart(_Part):
    """The images, and how crops are made of them."""

    name: str = "covid19-hannover"
    channels: Annotated[Literal[1, 3], BeforeValidator(_no_boolean)] = 1
    width: Positive | None = None
    validation: Literal["validation", "test"] = "validation"
    crop_size: Positive = 96
    flips: bool = True
    quarter_turns: bool = False
    smaller: tuple[Rate, ...] = ()
    variation: VariationPart | None = None


class GeneratorPart(_Part):
    """The generator: its ``network``, a name from
    :data:`srgan_lib.architectures.GENERATORS`, by default ``SRResNet``; and the arguments of that
    network, but for the channels, which are those of the data.
    """

    network: str
    scale: _Int

    @property
    def arguments(self) -> dict[str, Any]:
        """What the network is made with, but for the channels."""
        return self.model_dump(exclude={"network"})

    def __reduce__(self) -> tuple[Any, ...]:  # the made classes have no name in this module
        return _read_generator, (self.model_dump(),)

    @model_validator(mode="after")
    def _possible(self) -> "GeneratorPart":
        try:
            with torch.device("meta"):  # without memory
                GENERATORS[self.network](**self.arguments)
        except (RuntimeError, TypeError, OverflowError) as error:  # of torch, on huge sizes
            raise ValueError(f"no {self.network} has arguments of this size") from error
        return self


def _generator_part(name: str) -> type[GeneratorPart]:
    """Return the part for one network, made from its constructor: names, types and defaults."""
    fields: dict[str, Any] = {"network": (Literal[name], name)}
    for argument in inspect.signature(GENERATORS[name]).parameters.values():
        if argument.name != "channels":
            fields[argument.name] = (_without_booleans(argument.annotation), argument.default)
    return create_model(name, __base__=GeneratorPart, **fields)


def _read_generator(values: dict[str, Any]) -> GeneratorPart:
    return _GENERATOR_PARTS[values["network"]](**values)


def _without_booleans(kind: Any) -> Any:
    """Return a type with each ``int`` in it as one that refuses true and false."""
    if get_origin(kind) is tuple:
        return tuple[tuple(map(_without_booleans, get_args(kind)))]
    return _Int if kind is int else kind


_GENERATOR_PARTS = {name: _generator_part(name) for name in GENERATORS}


def _network_of(value: Any) -> Any:
    if isinstance(value, GeneratorPart):
        return value.network
    return str(value.get("network", "SRResNet")) if isinstance(value, dict) else None


_AnyGenerator = Annotated[
    Union[tuple(Annotated[part, Tag(name)] for name, part in _GENERATOR_PARTS.items())],  # noqa: UP007
    Discriminator(_network_of),
]


class DiscriminatorPart(_Part):
    """The discriminator: its ``network``, a name from
    :data:`srgan_lib.architectures.DISCRIMINATORS`, and the arguments of that network.
    """

    network: Literal[tuple(DISCRIMINATORS)] = "Discriminator"  # type: ignore[valid-type]
    width: Annotated[Positive, Field(le=MOST)] = 64
    grid: Annotated[Positive, Field(le=MOST)] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What the network is made with, but for channels and scale, which are the data's."""
        return self.model_dump(exclude={"network"}, exclude_none=True)

    @model_validator(mode="after")
    def _agree(self) -> "DiscriminatorPart":
        known = inspect.signature(DISCRIMINATORS[self.network]).parameters
        for name in self.arguments:
            if name not in known:
                raise ValueError(f"{name} has no use in a {self.network}; remove it")
        return self


class LossPart(_Part):
    """See :class:`srgan_lib.losses.GeneratorLoss`: VGG layers with the weight of each."""

    network: Literal["vgg16", "vgg19"] = "vgg19"
    weights: str = "imagenet"
    layers: dict[str, Weight] = {"relu5_4": 1.0}
    content: Literal["mse", "ranked"] = "mse"
    content_weight: Weight = 1.0
    perceptual_weight: Weight = 1.0
    adversarial_weight: Weight = 1e-3
    consistency_weight: Weight = 0.0
    perceptual_every: Positive = 1
    game: Literal["standard", "relativistic", "paired"] = "standard"

    @model_validator(mode="after")
    def _agree(self) -> "LossPart":
        known = layer_names(self.network)
        for layer in self.layers:
            if layer not in known:
                raise ValueError(str(unknown_name(f"layer of {self.network}", layer, known))[:-1])
        if not self.layers:
            raise ValueError("layers must name a layer; perceptual_weight: 0 leaves them out")
        check_weights(
            self.content_weight,
            self.perceptual_weight,
            self.adversarial_weight,
            self.consistency_weight,
        )
        return self

    @property
    def deepest(self) -> str:
        """The layer that the network must reach."""
        known = layer_names(self.network)
        return max(self.layers, key=known.index)


class Recipe(_Part):
    """All that a training run depends on, but for the machine.

    Attributes:
        stage: ``"content"`` (one) or ``"adversarial"`` (two).
        data: the images and their crops.
        generator: the generator's form.
        discriminator: the discriminator's form; stage two only.
        loss: the generator's loss; stage two only.
        start_from: weights to start from: a name of
            :data:`srgan_lib.pretrained.PRETRAINED`, or a safetensors file.
        epochs: number of epochs.
        crops_per_epoch: crops that make an epoch, a multiple of ``batch_size``.
        batch_size: crops a step, over all processes together.
        learning_rate: of the generator's Adam.
        discriminator_learning_rate: of the discriminator's Adam; the generator's by default.
        warm_up: steps in which only the discriminator learns; stage two only.
        betas: of both Adams, stage two only.
        penalty_weight: of the gradient penalty, stage two only. See
            :class:`srgan_lib.training.AdversarialStage`.
        schedule: ``"cosine"`` falls to 1 % over the run; ``"constant"`` stays.
        pixel_loss: ``"mse"`` or ``"l1"``; stage one only.
        average_decay: of the moving average of the generator's weights.
        precision: a name from :data:`srgan_lib.hardware.PRECISIONS`.
        compile: let ``torch.compile`` fuse operations.
        seed: of the weights and the crops.
    """

    stage: Literal["content", "adversarial"]
    data: DataPart = DataPart()
    generator: _AnyGenerator = _GENERATOR_PARTS["SRResNet"]()
    discriminator: DiscriminatorPart | None = None
    loss: LossPart | None = None
    start_from: str | None = None
    epochs: Positive = 40
    crops_per_epoch: Positive
    batch_size: Positive = 16
    learning_rate: Rate = 1e-4
    discriminator_learning_rate: Rate | None = None
    warm_up: Annotated[_Int, Field(ge=0)] = 0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    penalty_weight: Weight = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    pixel_loss: Literal["mse", "l1"] | None = None
    average_decay: Decay = 0.99
    precision: Literal["auto", "bf16", "fp16", "no"] = "auto"
    compile: bool = False
    seed: Annotated[_Int, Field(ge=0, lt=2**63)] = 0

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_no(cls, value: Any) -> Any:
        """YAML reads ``precision: no`` without quotes as false."""
        return "no" if value is False else value

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch."""
        return self.crops_per_epoch // self.batch_size

    @property
    def steps(self) -> int:
        """Number of steps in the whole run."""
        return self.epochs * self.steps_per_epoch

    @model_validator(mode="after")
    def _agree(self) -> "Recipe":
        if self.crops_per_epoch % self.batch_size:
            raise ValueError(
                f"crops_per_epoch ({self.crops_per_epoch}) must be a multiple of batch_size "
                f"({self.batch_size})"
            )
        if self.data.crop_size % self.generator.scale:
            raise ValueError(
                f"data.crop_size ({self.data.crop_size}) must be a multiple of generator.scale "
                f"({self.generator.scale})"
            )
        if self.stage == "content":
            for name in ("discriminator", "loss", "discriminator_learning_rate"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} has no use in the content stage; remove it")
            for name in ("warm_up", "betas", "penalty_weight"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no use in the content stage; remove it")
        else:
            if self.pixel_loss is not None:
                raise ValueError("pixel_loss has no use in the adversarial stage; remove it")
            for name in ("discriminator", "loss"):
                if getattr(self, name) is None:
                    raise ValueError(f"the adversarial stage needs the part {name}")
            if self.warm_up >= self.steps:
                raise ValueError(
                    f"warm_up ({self.warm_up}) must be less than the {self.steps} steps of the "
                    "run, or the generator never learns"
                )
            if self.data.crop_size < 32:
                raise ValueError("the discriminator needs a data.crop_size of 32 or more")
        return self


def read_recipe(path: str | os.PathLike) -> Recipe:
    """Read and check a recipe.

    Raises:
        ConfigurationError: a file that is missing or no YAML, an unknown key (the message names
            the nearest one), an impossible value, or parts that don't fit together.
    """
    path = Path(path)
    try:
        content = yaml.load(read_whole(path, MAX_BYTES).decode(), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"Could not read the recipe {path}: {reason}.") from error
    except Exception as error:  # numbers and dates that are none raise errors of their own
        raise ConfigurationError(f"The recipe {path} is not YAML: {error}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"The recipe {path} holds no keys with values.")
    return check_recipe(content, f"The recipe {path}")


def check_recipe(content: dict[str, Any], what: str = "The recipe") -> Recipe:
    """Turn plain dictionaries into a recipe.

    Raises:
        ConfigurationError: see :func:`read_recipe`.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        # A wrong key goes first: it is why another one is missing.
        wrong = ("extra_forbidden", "invalid_key")
        first = min(error.errors(), key=lambda one: one["type"] not in wrong)
        place = ".".join(str(part) for part in first["loc"] if part not in GENERATORS)
        if first["type"] == "union_tag_invalid":
            given = unknown_name("network", first["ctx"]["tag"], GENERATORS)
            raise ConfigurationError(f"{what}, at {place}.network: {given}") from error
        if first["type"] == "extra_forbidden":
            known = _keys_at(first["loc"][:-1])
            unknown = unknown_name("key", str(first["loc"][-1]), known)
            raise ConfigurationError(f"{what}, at {place}: {unknown}") from error
        message = first["msg"].removeprefix("Value error, ").removesuffix(".")
        if first["type"] == "union_tag_not_found":
            message = "Input should be a dictionary of its arguments"
        # What is wrong with a part as a whole, its message says; all of it would be too much.
        whole = first["type"] == "value_error" and isinstance(first["input"], dict)
        shown = place and first["type"] != "missing" and not whole
        given = f", not {_SHORT.repr(first['input'])}" if shown else ""
        at = f", at {place}" if place else ""
        raise ConfigurationError(f"{what}{at}: {message}{given}.") from error


def write_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML, with all its defaults filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _keys_at(place: tuple[Any, ...]) -> list[str]:
    """Return the keys that the part of a recipe at this place knows."""
    parts = {
        "data": DataPart,
        "variation": VariationPart,
        **_GENERATOR_PARTS,
        "discriminator": DiscriminatorPart,
        "loss": LossPart,
    }
    part = parts[place[-1]] if place else Recipe
    return list(part.model_fields)
