"""A teacher's network beside the student's training, for what its answers alone do not tell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers.utils import ModelOutput

from mlflow_llmops.methods._hooks import hooks_as_before
from mlflow_llmops.methods._rows import Batch
from mlflow_llmops.models.text_model import TextModel

Watch = Callable[[Batch], ModelOutput]


@contextmanager
def watched(teacher: TextModel, *wants: str) -> Iterator[Watch]:
    """Run the teacher's base network on a batch's clean tokens, without gradients; after, it is as it was.

    `wants` names what it gives beside its last states (`hidden_states`).
    """
    net = teacher.network.eval()
    home = net.device

    def watch(batch: Batch) -> ModelOutput:
        if net.device != batch["clean_ids"].device:
            net.to(batch["clean_ids"].device)
        with torch.no_grad():
            return net.base_model(
                input_ids=batch["clean_ids"],
                attention_mask=batch["attention_mask"],
                **{f"output_{name}": True for name in wants},
            )

    with hooks_as_before(net):
        try:
            yield watch
        finally:
            net.to(home)
