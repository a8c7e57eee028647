"""Quantized tensors inside a torch network, through torchao: for those who stay in torch."""

import tempfile
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import transformers

from mlflow_llmops.data.texts import Splits
from mlflow_llmops.errors import MissingExtra
from mlflow_llmops.methods._fake_quantize import Rounding
from mlflow_llmops.methods.quantize._quantization import Quantization
from mlflow_llmops.models.tasks import task_named
from mlflow_llmops.models.text_model import TextModel

SCHEMES = {"weights": "Int8WeightOnlyConfig", "dynamic": "Int8DynamicActivationInt8WeightConfig"}


@dataclass(frozen=True)
class TorchAo(Quantization):
    """int8 weights of the linear layers, and activations at run time with `scheme=dynamic`; embeddings stay as is.

    The result is a transformers model (safetensors) that plain `from_pretrained` loads where torchao is installed. It
    saves space; on a CPU it need not be faster, which the run measures.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text-classification", "text-generation")

    scheme: Annotated[Literal["weights", "dynamic"], "weights alone in int8, or activations at run time too"] = (
        "weights"
    )

    @property
    def rounding(self) -> Rounding:
        return Rounding(inputs=self.scheme == "dynamic")

    def check(self, model: TextModel, data: Splits) -> None:
        super().check(model, data)
        if find_spec("torchao") is None:
            raise MissingExtra("quantize.torchao needs torchao: pip install 'mlflow-llmops[torchao]'")
        if int(transformers.__version__.partition(".")[0]) < 5:
            raise MissingExtra(
                f"transformers {transformers.__version__} cannot save what torchao quantized; install 5 or newer, or "
                "take quantize.int8_static or quantize.weight_only"
            )

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        # here, because transformers and torchao talk to the terminal when they meet
        from torchao import quantization
        from transformers import TorchAoConfig
        from transformers.quantizers.base import get_keys_to_not_convert

        scheme: Any = getattr(quantization, SCHEMES[self.scheme])()
        kept = self.kept(model.network)
        # what is given replaces what transformers leaves out by itself
        left = sorted({*kept, *get_keys_to_not_convert(model.network)}) if kept else None
        with tempfile.TemporaryDirectory(prefix="llmops-torchao-") as whole:
            model.with_net(deepcopy(model.network)).save(Path(whole))  # saving fills in the config
            auto = task_named(model.task).auto()
            net = auto.from_pretrained(whole, quantization_config=TorchAoConfig(scheme, modules_to_not_convert=left))
        return model.with_net(net.eval())
