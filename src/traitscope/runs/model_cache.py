"""Models of this process: the digest of a model's files, and the models that are loaded."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from traitscope.config.common import OnModel
from traitscope.errors import ConfigError
from traitscope.models import weight_noise
from traitscope.models.bundled import EMBEDDED
from traitscope.models.identity.digest import EMBEDDED_DIGEST
from traitscope.models.identity.finding import digests_of

if TYPE_CHECKING:
    from traitscope.models.model import ControlTokens, Model


@cache
def model_digests(name: str, same_as: str | None = None) -> tuple[str, ...]:
    """Digests of a model's files without loading it; computed once a process.

    The first one counts. Runs and vectors may know the model by the others. Raises ConfigError for
    an empty `same_as`.
    """
    if same_as is not None and not same_as.strip():
        raise ConfigError(
            "--same-as is empty; expected a model, or its digest; name one, or leave the flag out"
        )
    return digests_of(name, same_as=same_as)


def address_name(name: str, same_as: str | None = None) -> str:
    """What stands for the name of a model in addresses, so that its place does not matter.

    It is the digest, but for the embedded model, which goes by its name.
    """
    plain, mark, noise = name.partition(weight_noise.MARK)
    if plain == EMBEDDED:
        return name
    if model_digests(plain, same_as)[0] == EMBEDDED_DIGEST:
        return f"{EMBEDDED}{mark}{noise}"
    return model_digests(name, same_as)[0]


def model_digest(name: str) -> str:
    """The digest of a model's files without loading it."""
    return model_digests(name)[0]


@lru_cache(maxsize=2)
def model_for(
    name: str,
    device: str,
    dtype: str,
    template: tuple[str, ...] = (),
    control_tokens: ControlTokens = "text",
    same_as: str | None = None,
) -> Model:
    """The loaded model; the last two of a process are kept."""
    from traitscope.models.loading import load_model

    return load_model(
        name,
        device,
        dtype,
        template=template,
        control_tokens=control_tokens,
        same_as=same_as,
    )


def model_of(config: OnModel) -> Model:
    """The model that a settled config names."""
    return model_for(
        config.model,
        config.device,
        config.dtype,
        config.template,
        config.control_tokens,
        config.same_as,
    )
