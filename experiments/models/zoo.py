"""Models by name: the suite's own, and those of torchvision and timm, without pretrained weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from experiments.errors import UserError, nearest

from .networks import MODELS

_KEY, _OPTIONS = "model.name", "model.options"
_Create = Callable[..., nn.Module]  # number of classes, options -> model
Init = Literal["default", "kaiming_fan_in", "kaiming_fan_out"]


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    options: Mapping[str, Any] | None = None,
    init: Init = "default",
) -> nn.Module:
    """Build a freshly initialised classifier; works under ``torch.device("meta")`` too.

    Args:
        name: A key of `MODELS`, ``torchvision:NAME`` (classification models) or ``timm:NAME``.
        num_classes: Number of logits.
        in_channels: Channels of an image; torchvision's models take 3 only.
        image_size: Height and width of an image in pixels.
        options: Arguments for the library's builder; the suite's own models take none.
        init: ``default`` keeps the library's initialisation; see `initialise` for the others.

    Returns:
        A module in training mode that maps [N, in_channels, image_size, image_size] to [N, num_classes].

    Raises:
        UserError: for an unknown name or option, or a model that does not fit the images.
    """
    model = _build(name, dict(options or {}), num_classes, in_channels, image_size)
    if init != "default":
        initialise(model, init)
    return model


def initialise(model: nn.Module, init: Literal["kaiming_fan_in", "kaiming_fan_out"]) -> None:
    """Reinitialise the weights of all convolutional and linear layers, in the order of the modules.

    Weights are normal with variance 2 / fan, for ReLU (He et al. 2015, arXiv:1502.01852). Biases and normalisation
    layers stay unchanged.

    Args:
        model: The network; its weights are changed in place.
        init: Whether the fan counts the inputs or the outputs of a layer.
    """
    mode = "fan_in" if init == "kaiming_fan_in" else "fan_out"
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


def _build(name: str, options: dict[str, Any], num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    shape = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    if name in MODELS:
        if options:
            raise UserError(f"the suite's own model {name!r} takes no options; write {{}}", where=_OPTIONS)
        return MODELS[name](**shape)
    library, _, inner = name.partition(":")
    if library not in _LIBRARIES:
        allowed = [*MODELS, *(f"{prefix}:NAME" for prefix in _LIBRARIES)]
        raise UserError(
            f"{name!r} is not a model; allowed: {', '.join(allowed)}"
            f"{in_a_library(name) or nearest(name.lower(), MODELS)}",
            where=_KEY,
        )
    create = _LIBRARIES[library](inner, in_channels, image_size, options)
    try:
        model = create(num_classes, **options)
        fault = _fault(model, **shape)
        if fault is None:
            return model
    except NotImplementedError:  # an operation that the meta device lacks: not a fault of the model
        raise
    except _MISFITS as error:
        _check_options(name, error, options, partial(create, num_classes))
        fault = f"{error}".strip().split("\n")[0] or type(error).__name__
    images = f"{in_channels} x {image_size} x {image_size}"
    given = f" with model.options {options}" if options else ""
    raise UserError(f"{name!r}{given} does not fit images of {images}: {fault}", where=_KEY)


def _check_options(name: str, error: Exception, options: Mapping[str, Any], create: _Create) -> None:
    """Raise a `UserError` about an option, if the builder's error concerns one that is unknown or already set."""
    found = re.search(r"(?:unexpected keyword|multiple values for(?: keyword)?) argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and found and found[1] in options:
        with torch.device("meta"):
            known = inspect.signature(type(create()).__init__).parameters
        hint = nearest(found[1], [key for key in known if key not in ("self", found[1])])
        raise UserError(f"{name!r} takes no such option{hint}", where=f"{_OPTIONS}.{found[1]}") from error


# Errors that libraries raise, at construction or in a first pass, if images are too small or not divisible as required.
_MISFITS = (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, IndexError)


def _fault(model: nn.Module, *, num_classes: int, in_channels: int, image_size: int) -> str | None:
    """Return what is wrong with the logits of one image, or None.

    Without this pass, a mismatch would appear later as a traceback from deep inside a library.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, in_channels, image_size, image_size, device=parameter.device)
    model.eval()  # keeps batch statistics unchanged
    with torch.no_grad():
        logits = model(image)
    model.train()
    if isinstance(logits, Tensor) and logits.shape == (1, num_classes):
        return None
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    return f"it returns {shape} where logits of [1, {num_classes}] are expected"


def _torchvision(name: str, in_channels: int, image_size: int, options: Mapping[str, Any]) -> _Create:
    from torchvision import models

    _check_name("torchvision", name, models.list_models(module=models))
    if in_channels != 3:
        raise UserError(
            f"'torchvision:{name}' takes images of 3 channels, but the data has {in_channels}; "
            f"use {', '.join(MODELS)} or timm:NAME",
            where=_KEY,
        )
    # By default these two return tuples in training, and warn unless init_weights is given.
    extra = {"aux_logits": False, "init_weights": True} if name in {"googlenet", "inception_v3"} else {}
    own = {"weights": None, "progress": False, **extra}
    _check_reserved([*own, "name", "weights_backbone", "num_classes"], options)
    return lambda num_classes, **options: models.get_model(name, num_classes=num_classes, **own, **options)


def _timm(name: str, in_channels: int, image_size: int, options: Mapping[str, Any]) -> _Create:
    import timm

    _check_name("timm", name, timm.list_models())
    config = timm.models.get_pretrained_cfg(name)
    # Transformers and similar models are built for one image size, by default 224; the others lack this argument.
    sized: dict[str, Any] = {"img_size": image_size} if config and config.fixed_input_size else {}
    own = inspect.signature(timm.create_model).parameters  # weights to load, for instance
    _check_reserved([*own, "num_classes", "in_chans", "img_size"], options)
    return lambda num_classes, **options: timm.create_model(
        name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **sized, **options
    )


def _check_reserved(reserved: Sequence[str], options: Mapping[str, Any]) -> None:
    for key in options:
        if key in reserved:
            text = "is set by the suite (classes and images by the data; no pretrained weights) and cannot be an option"
            raise UserError(text, where=f"{_OPTIONS}.{key}")


def in_a_library(name: str) -> str:
    """Return ``"; did you mean 'torchvision:x'?"`` for a bare name of torchvision's or timm's, or nothing."""
    import timm
    import torchvision

    known = {"torchvision": torchvision.models.list_models, "timm": timm.list_models}
    found = next((library for library, names in known.items() if name.lower() in names()), None)
    return f"; did you mean '{found}:{name.lower()}'?" if found else ""


_LIBRARIES: dict[str, Callable[[str, int, int, Mapping[str, Any]], _Create]] = {
    "torchvision": _torchvision,
    "timm": _timm,
}


def _check_name(library: str, name: str, allowed: Sequence[str]) -> None:
    if name not in allowed:
        raise UserError(
            f"{name!r} is not one of the {len(allowed)} classification models of {library}"
            f"{nearest(name.lower(), allowed)}",
            where=_KEY,
        )
