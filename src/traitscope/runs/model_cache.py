"""Models of this process: the digest of a model's files, and the models that are loaded."""

from functools import cache, lru_cache

from traitscope.config.common import OnModel
from traitscope.models.loading import digest_of, load_model
from traitscope.models.model import ControlTokens, Model


@cache
def model_digest(name: str) -> str:
    """Digest of a model's files without loading it; computed once a process."""
    return digest_of(name)


@lru_cache(maxsize=2)
def model_for(
    name: str,
    device: str,
    dtype: str,
    template: tuple[str, ...] = (),
    control_tokens: ControlTokens = "text",
) -> Model:
    """The loaded model; the last two of a process are kept."""
    return load_model(name, device, dtype, template=template, control_tokens=control_tokens)


def model_of(config: OnModel) -> Model:
    """The model that a settled config names."""
    return model_for(
        config.model, config.device, config.dtype, config.template, config.control_tokens
    )
