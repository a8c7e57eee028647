"""Distillation on the student's own samples, for causal models: it learns where it goes by itself, too."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch.nn.functional import kl_div, log_softmax

from mlflow_llmops.data.texts import Splits, Texts
from mlflow_llmops.methods._losses import Loss, Outputs, Terms
from mlflow_llmops.methods._rows import IGNORED, Batch, Row, encode
from mlflow_llmops.methods._train import Prepare, train
from mlflow_llmops.methods.distill._distillation import WithStudent
from mlflow_llmops.models.text_model import TextModel


@dataclass(frozen=True)
class OnPolicy(WithStudent):
    """Generalized knowledge distillation: in a share of the steps the student completes the prompts itself, and learns
    how the teacher would have gone on after each of its tokens, by a generalized Jensen-Shannon divergence.

    Source: Agarwal et al., arXiv:2306.13649.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text-generation",)

    on_policy: Annotated[float, "share of steps on its own samples; the others on the texts", Ge(0), Le(1)] = 0.5
    interpolation: Annotated[float, "the divergence: 0 forward KL, 1 reverse KL, 0.5 JSD", Ge(0), Le(1)] = 0.5
    prompt_tokens: Annotated[int, "first tokens of a text, which the student completes", Ge(1)] = 8
    new_tokens: Annotated[int, "tokens that the student adds to a prompt", Ge(1)] = 32
    sampling_temperature: Annotated[float, "temperature of the student's samples", Gt(0)] = 1.0

    def apply(self, model: TextModel, data: Splits, folder: Path, seed: int = 0) -> TextModel:
        student = self.student_of(model, data, seed)
        train(
            student,
            self._rows(student, data.train),
            self.schedule(seed),
            divergence_loss(model, self.interpolation),
            dev=self._rows(student, data.dev),
            prepare=self._sampler(student),
        )
        return replace(student, fresh=False)

    def _rows(self, student: TextModel, texts: Texts) -> list[Row]:
        rows = []
        for ids in encode(student, texts.texts):
            labels = ids.copy()
            labels[: min(self.prompt_tokens, len(ids) - 1)] = IGNORED
            rows.append(Row(ids, labels))
        return rows

    def _sampler(self, student: TextModel) -> Prepare:
        def prepare(batch: Batch) -> Batch:
            if torch.rand(()) >= self.on_policy:
                return batch
            shortest = int(batch["attention_mask"].sum(1).min())
            prompts = batch["clean_ids"][:, : max(1, min(self.prompt_tokens, shortest - 1))]
            sampled = sample(student, prompts, self.new_tokens, self.sampling_temperature)
            return {**batch, **sampled}

        return prepare


def sample(student: TextModel, prompts: torch.Tensor, new_tokens: int, temperature: float) -> Batch:
    """The student's completions of `prompts`, (texts, tokens) without padding, as a batch; no loss counts prompts."""
    net: Any = student.network
    room = student.max_length - prompts.shape[1]
    net.eval()
    with torch.no_grad():
        ids = net.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=max(1, min(new_tokens, room)),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            pad_token_id=student.pad_id,
        )
    net.train()
    end = student.tokenizer.eos_token_id
    completion = ids[:, prompts.shape[1] :]
    ended = (completion == end).cumsum(1) - (completion == end).int() > 0 if end is not None else completion < 0
    real = torch.cat([torch.ones_like(prompts), (~ended).long()], dim=1)
    labels = ids.masked_fill(real == 0, IGNORED)
    labels[:, : prompts.shape[1]] = IGNORED
    return {"clean_ids": ids, "input_ids": ids, "attention_mask": real, "labels": labels}


def divergence_loss(teacher: TextModel, interpolation: float) -> Loss:
    """The divergence between the teacher's and the student's next words, mean over the tokens of completions."""
    net = teacher.network.eval()

    def loss(outputs: Outputs, batch: Batch) -> Terms:
        counted = batch["labels"][:, 1:] != IGNORED
        with torch.no_grad():
            answers = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        theirs, ours = (log_softmax(logits[:, :-1][counted], dim=-1) for logits in (answers, outputs.logits))
        return {"teacher": (1.0, generalized_jsd(theirs, ours, interpolation))}

    return loss


def generalized_jsd(teacher: torch.Tensor, student: torch.Tensor, interpolation: float) -> torch.Tensor:
    """b KL(p || m) + (1 - b) KL(q || m), m = b p + (1 - b) q, from log probabilities (tokens, words), mean over tokens.

    At its ends the limits that give a gradient: 0 is KL(p || q), 1 is KL(q || p), with p the teacher's.
    """
    if interpolation == 0:
        return kl_div(student, teacher, reduction="batchmean", log_target=True)
    if interpolation == 1:
        return kl_div(teacher, student, reduction="batchmean", log_target=True)
    shares = torch.tensor([np.log(interpolation), np.log1p(-interpolation)], dtype=student.dtype, device=student.device)
    mixture = torch.logsumexp(torch.stack([teacher + shares[0], student + shares[1]]), dim=0)
    of_teacher, of_student = (kl_div(mixture, p, reduction="batchmean", log_target=True) for p in (teacher, student))
    return interpolation * of_teacher + (1 - interpolation) * of_student
