"""Why a state dict does not fit a network, and what to do: the true reason first."""

from collections.abc import Collection, Mapping
from itertools import takewhile

import torch
from torch import Tensor, nn

from mar_tools.models.traces import find_trace

GUESSES = {("start", 1): ["Dropout"], ("middle", 1): ["ReLU"], ("middle", 2): ["ReLU", "Dropout"]}  # by place and gap
OTHER_NAMES = 16  # missing or unexpected: more than a head has
MANY = 4  # tensors of other shapes: more than a head has


def describe_misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], by_name: bool = False) -> str:
    """Return what does not fit between a network's state dict and another, and what to do; empty when all does.

    by_name: shapes may differ.
    """
    both = [name for name in expected if name in found]
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    kinds = [name for name in both if expected[name].is_floating_point() > found[name].is_floating_point()]
    odd = [name for name in both if not _is_plain(found[name])]
    shapes = [name for name in both if found[name].shape != expected[name].shape]
    trace = find_trace(unexpected)
    if trace is not None:
        return trace
    if odd:
        return f"{odd[0]} is {_describe_odd(found[odd[0]])}; save the state dict of the plain float network"
    if kinds:
        return f"{kinds[0]} holds {_kind_of(found[kinds[0]])}, expected floats: the weights are quantised or packed"
    if not missing and not unexpected:
        return _describe_shapes(expected, found, shapes) if shapes and not by_name else ""
    parts = [f"{name} {_differ(expected, found, name)}" for name in shapes[:2]]
    strays = {"missing": missing, "unexpected": unexpected}
    parts += [f"{len(names)} {kind} keys, the first {names[0]!r}" for kind, names in strays.items() if names]
    return "; ".join([*parts, *_hint(found, missing, unexpected, shapes)])


def _is_plain(values: Tensor) -> bool:
    plain = type(values) in (Tensor, nn.Parameter) and values.layout == torch.strided
    return plain and not (values.is_quantized or values.is_meta)


def _describe_odd(values: Tensor) -> str:
    if values.is_quantized or type(values) not in (Tensor, nn.Parameter):
        return f"quantised or packed ({'qint' if values.is_quantized else type(values).__name__})"
    return "without values (of the device `meta`)" if values.is_meta else "a sparse tensor"


def _kind_of(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _differ(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], name: str) -> str:
    return f"has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"


def _describe_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], shapes: list[str]) -> str:
    first = "; ".join(f"{name} {_differ(expected, found, name)}" for name in shapes[:2])
    if all(found[name].shape[1:] == expected[name].shape[1:] for name in shapes):
        counts = {found[name].shape[0] for name in shapes if found[name].dim() == 2}
        classes = str(counts.pop()) if len(counts) == 1 else "..."
        return f"{first}; say how many classes it has by `arguments: {{num_classes: {classes}}}` under `model:`"
    smaller = all(a <= b for name in shapes for a, b in zip(found[name].shape, expected[name].shape, strict=False))
    if smaller and len(shapes) > MANY:
        return (
            f"{first}, and {len(shapes) - 2} more are smaller; where channels were pruned, say `shapes: weights` under "
            "`model:`; else it is a smaller network of this family"
        )
    return f"{first}{f', and {len(shapes) - 2} more' if len(shapes) > 2 else ''}; it is another network of this family"


def _hint(
    found: Mapping[str, Tensor], missing: Collection[str], unexpected: Collection[str], shapes: Collection[str]
) -> list[str]:
    """Return what to do where a head was replaced, the rest being equal."""
    if max(len(missing), len(unexpected)) > OTHER_NAMES:
        return ["it is another network, or these are not all of its weights"]
    if not missing or not unexpected or shapes:
        return []
    place = _common_module(missing)
    if not place:
        return []
    if all(name.startswith(f"{place}.") for name in unexpected):
        layers = guess_layers({name.removeprefix(f"{place}."): found[name] for name in unexpected})
        if layers:
            line = f"head: {{{place}: {layers[0] if len(layers) == 1 else '[' + ', '.join(layers) + ']'}}}"
            return [
                f"its {place} is another; say `{line}` under `model:`, with the layers that your training put there "
                "(the file tells only those that have weights)"
            ]
    return [_ten_lines(place)]


def _common_module(names: Collection[str]) -> str:
    """Return the innermost module that all of the names lie in; empty where that is the network."""
    places = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(place[0] for place in takewhile(lambda place: len(set(place)) == 1, places))


def guess_layers(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the layers of a head by their names in torch.nn; none where the weights do not tell.

    weights: by names such as `1.weight` of an nn.Sequential, or `weight` of one layer. Layers without weights are
    guessed by where they stand.
    """
    own: dict[int, dict[str, Tensor]] = {}
    for name, values in weights.items():
        place, _, key = name.rpartition(".")
        if place and not place.isdecimal():
            return []
        own.setdefault(int(place or 0), {})[key] = values
    layers: list[str] = []
    for index, entries in sorted(own.items()):
        gap = ("middle" if layers else "start", index - len(layers))
        if gap[1] and gap not in GUESSES:
            return []
        layers += [*GUESSES.get(gap, []), _layer_of(entries)]
    return layers if "" not in layers else []


def _layer_of(values: Mapping[str, Tensor]) -> str:
    if "running_mean" in values:
        return "BatchNorm1d"
    return {1: "LayerNorm", 2: "Linear", 4: "Conv2d"}.get(values["weight"].dim() if "weight" in values else 0, "")


def _ten_lines(place: str) -> str:
    """Return the file to write where a recipe's `head` cannot say it."""
    owner, _, own = place.rpartition(".")
    target = f'network.get_submodule("{owner}")' if owner else "network"
    return f"""its {place} is another. Rebuild the network in a file beside the recipe, as your training did:

    # network.py
    import torchvision
    from torch import nn


    def build():
        network = torchvision.models.resnet18()   # yours
        {target}.{own} = nn.Sequential(nn.Dropout(), nn.Linear(512, 5))   # your head, as in your training
        return network

and say `model: {{source: python, file: network.py, class: build, weights: ...}}`, with `preprocessing`"""
