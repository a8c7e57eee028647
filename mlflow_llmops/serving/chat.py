"""From the messages of a chat to one prompt: by the template of the model's tokenizer, or as lines with roles."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mlflow_llmops.engines.artifact import CHAT
from mlflow_llmops.serving.refusals import Refused

EXPORTED, TOKENIZER = "artifact", Path("components") / "tokenizer"
"""Where in an MLflow model of either flavor the tokenizer lies (a storage format)."""


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template as tokenizers have them, run in a sandbox, since it comes with the model."""

    template: str
    tokens: dict[str, str]
    """What the template calls `bos_token` and so on."""

    @classmethod
    def of(cls, folder: Path) -> "ChatTemplate | None":
        """That of an MLflow model; None where its tokenizer has none."""
        if (stored := folder / EXPORTED / CHAT).is_file():
            return cls(**json.loads(stored.read_text(encoding="utf-8")))
        if not (folder / TOKENIZER).is_dir():
            return None
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
        template = tokenizer.chat_template
        tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        return cls(template, tokens) if isinstance(template, str) else None

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """Raises Refused where the template refuses the messages."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals |= {"raise_exception": _raise, "strftime_now": datetime.now().strftime}
        try:
            return environment.from_string(self.template).render(
                messages=list(messages), add_generation_prompt=True, **self.tokens
            )
        except TemplateError as error:
            raise Refused(400, f"messages: the model's chat template refuses them: {error}", "messages") from error


def as_lines(messages: Sequence[dict[str, Any]]) -> str:
    """For a tokenizer without a template."""
    return "\n".join([*(f"{each['role']}: {each['content']}" for each in messages), "assistant:"])


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
