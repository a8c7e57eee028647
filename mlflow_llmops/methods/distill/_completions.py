"""What a causal teacher writes after the first tokens of each text."""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm.auto import tqdm

from mlflow_llmops.batching.plan import TOKEN_BUDGET
from mlflow_llmops.endpoint.answers import Answer
from mlflow_llmops.methods._rows import encode
from mlflow_llmops.models.text_model import TextModel


def prompts_of(model: TextModel, texts: Sequence[str], tokens: int) -> list[np.ndarray]:
    """The first `tokens` token ids of each text, or all of a shorter one, without the token that ends it."""
    ends = {model.tokenizer.eos_token_id, model.tokenizer.sep_token_id} - {None}
    prompts = []
    for ids in encode(model, texts):
        cut = ids[:tokens]
        while len(cut) and int(cut[-1]) in ends:
            cut = cut[:-1]
        prompts.append(cut)
    return prompts


def completions(
    teacher: TextModel, prompts: Sequence[np.ndarray], max_new_tokens: int, temperature: float, seed: int
) -> list[np.ndarray]:
    """The token ids that the teacher writes after each prompt, (tokens,), the end token last where it came to it.

    Temperature 0 takes the most likely token each time. A prompt without a token, or without room after it, gets none.
    """
    distinct: dict[bytes, list[int]] = {}
    for position, prompt in enumerate(prompts):
        distinct.setdefault(prompt.tobytes(), []).append(position)
    # prompts of one length need no padding, so that each is completed as it would be alone
    of_length: dict[int, list[np.ndarray]] = {}
    for positions in distinct.values():
        of_length.setdefault(len(prompts[positions[0]]), []).append(prompts[positions[0]])
    found: list[np.ndarray] = [np.array([], dtype=np.int64)] * len(prompts)
    with tqdm(total=len(distinct), desc="teacher's completions") as bar, torch.random.fork_rng():
        torch.manual_seed(seed)
        for length, group in sorted(of_length.items()):
            new = min(max_new_tokens, teacher.max_length - length)
            if length == 0 or new <= 0:
                continue
            size = max(1, TOKEN_BUDGET["torch"] // (length + new))
            for start in range(0, len(group), size):
                batch = group[start : start + size]
                for prompt, written in zip(batch, _written(teacher, np.stack(batch), new, temperature), strict=True):
                    for position in distinct[prompt.tobytes()]:
                        found[position] = written
                bar.update(len(batch))
    return found


def as_text(teacher: TextModel, prompt: np.ndarray, written: np.ndarray) -> tuple[str, Answer]:
    """Both as text, for a student with other tokens: the space between them belongs to the answer."""
    before, alone, whole = (
        str(teacher.tokenizer.decode(ids.tolist(), skip_special_tokens=True))
        for ids in (prompt, written, np.concatenate([prompt, written]))
    )
    answer = whole.removeprefix(before) if whole.startswith(before) else alone
    ended = len(written) > 0 and int(written[-1]) in _ends(teacher)
    return before, Answer("", answer, "stop" if ended else "length")


def _ends(teacher: TextModel) -> list[int]:
    """The tokens that end a text."""
    of_tokenizer, config = teacher.tokenizer.eos_token_id, teacher.network.generation_config
    found = config.eos_token_id if of_tokenizer is None and config is not None else of_tokenizer
    return [] if found is None else [int(token) for token in np.atleast_1d(np.array(found))]


def _written(teacher: TextModel, prompts: np.ndarray, new: int, temperature: float) -> list[np.ndarray]:
    net = teacher.network.eval()
    ends = _ends(teacher)
    ids = torch.from_numpy(prompts).to(net.device)
    # all that the teacher is sampled with is said here, whatever its generation_config.json says
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    with torch.inference_mode():
        written = net.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            pad_token_id=teacher.pad_id,
            eos_token_id=ends or None,
            **{"do_sample": False, "num_beams": 1, **sampling},
        )
    return [_cut(row, ends) for row in written[:, prompts.shape[1] :].cpu().numpy()]


def _cut(written: np.ndarray, ends: list[int]) -> np.ndarray:
    """Up to the first end token, and with it: what follows is padding."""
    found = np.flatnonzero(np.isin(written, ends))
    return written[: found[0] + 1] if len(found) else written
