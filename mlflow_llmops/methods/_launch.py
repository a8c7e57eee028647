"""How this process was started: alone, or by `torchrun` or `accelerate launch` as one of several."""

import os

from mlflow_llmops.errors import ConfigError


def processes() -> int:
    """How many train together; 1 where no launcher started this process."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the first of them."""
    return int(os.environ.get("RANK", 0)) == 0


def check_alone(verb: str) -> None:
    """Raises ConfigError where several processes were started for a verb that trains no network itself."""
    if processes() > 1:
        raise ConfigError(
            f"{verb} runs as one process, and {processes()} were started; start finetune, distill or prune like this"
        )
