"""The table of methods: a name, and where its class lives. It is imported on first use; a broken line is an error.

Other packages add theirs through the entry-point group `mlflow_llmops.methods`, by the same names and paths.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mlflow_llmops.errors import ConfigError

if TYPE_CHECKING:
    from mlflow_llmops.methods.method import Method

ENTRY_POINT_GROUP = "mlflow_llmops.methods"

METHODS = {
    "finetune.full": "mlflow_llmops.methods.finetune.full:Full",
    "distill.logits": "mlflow_llmops.methods.distill.logits:Logits",
    "distill.on_policy": "mlflow_llmops.methods.distill.on_policy:OnPolicy",
    "distill.sequence": "mlflow_llmops.methods.distill.sequence:Sequence",
    "distill.hidden": "mlflow_llmops.methods.distill.hidden:Hidden",
    "distill.attention": "mlflow_llmops.methods.distill.attention:Attention",
    "prune.neurons": "mlflow_llmops.methods.prune.neurons:Neurons",
    "prune.heads": "mlflow_llmops.methods.prune.heads:Heads",
    "prune.layers": "mlflow_llmops.methods.prune.layers:Layers",
    "prune.width": "mlflow_llmops.methods.prune.width:Width",
    "prune.vocabulary": "mlflow_llmops.methods.prune.vocabulary:Vocabulary",
    "prune.magnitude": "mlflow_llmops.methods.prune.magnitude:Magnitude",
    "prune.wanda": "mlflow_llmops.methods.prune.wanda:Wanda",
    "prune.sparsegpt": "mlflow_llmops.methods.prune.sparsegpt:SparseGPT",
    "factorize.svd": "mlflow_llmops.methods.factorize.svd:Svd",
    "factorize.attention": "mlflow_llmops.methods.factorize.attention:Attention",
    "quantize.int8_static": "mlflow_llmops.methods.quantize.int8_static:Int8Static",
    "quantize.half": "mlflow_llmops.methods.quantize.half:Half",
    "quantize.torchao": "mlflow_llmops.methods.quantize.torchao:TorchAo",
    "quantize.qat": "mlflow_llmops.methods.quantize.qat:Qat",
    "quantize.int8_dynamic": "mlflow_llmops.methods.quantize.int8_dynamic:Int8Dynamic",
    "quantize.weight_only": "mlflow_llmops.methods.quantize.weight_only:WeightOnly",
    "export.openvino": "mlflow_llmops.methods.export.openvino:OpenVino",
    "export.onnx": "mlflow_llmops.methods.export.onnx:Onnx",
    "export.fastest": "mlflow_llmops.methods.export.fastest:Fastest",
    "export.compile": "mlflow_llmops.methods.export.compile:Compile",
}


@cache
def _paths() -> Mapping[str, str]:
    others = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    taken = sorted(others.keys() & METHODS.keys())
    if taken:
        raise ConfigError(f"another package's methods take names of ours: {', '.join(taken)}; rename or uninstall it")
    return {**METHODS, **others}


def names(verb: str | None = None) -> tuple[str, ...]:
    """Every method as `verb.name`, or those of one verb; the first of a verb is its default."""
    return tuple(name for name in _paths() if verb is None or name.split(".")[0] == verb)


def method_class(name: str) -> "type[Method]":
    """Raises ConfigError for an unknown name, with the near ones; a line that cannot be imported raises as it is."""
    if name not in _paths():
        near = get_close_matches(name, _paths(), n=3, cutoff=0.4)
        hint = f"near ones: {', '.join(near)}" if near else f"there are: {', '.join(_paths())}"
        raise ConfigError(f"method {name} is not known; {hint}")
    module, _, attribute = _paths()[name].partition(":")
    found: type[Method] = getattr(import_module(module), attribute)
    return found


def build(name: str, options: Mapping[str, Any]) -> "Method":
    """The method with these options; those it does not name keep their defaults."""
    cls = method_class(name)
    known = [option.name for option in cls.options()]
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known) or 'none'}"
            raise ConfigError(f"{option}: method {name} has no such option; {hint}")
    return cls(**options)
