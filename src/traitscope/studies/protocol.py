"""What a study is: one file in `claims/` for each published claim. Each has

TITLE, CLAIM, SOURCE, PUBLISHED    texts for the page
SIZES                              settings by name: smoke, laptop, full
nodes(size, common) -> list[Node]  the stages; `common` holds model, device and dtype
conclude(size, folders, model) -> Findings
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from traitscope.errors import ConfigError
from traitscope.studies import claims


def names() -> list[str]:
    """Names of all studies, sorted."""
    return sorted(found.name for found in iter_modules(claims.__path__))


def load(name: str) -> ModuleType:
    """The study of that name.  Raises ConfigError for an unknown one."""
    name = name.replace("-", "_")
    if name not in names():
        raise ConfigError(
            f"no study {name!r}; expected one of {', '.join(names())}; see: traitscope study list"
        )
    return import_module(f"{claims.__name__}.{name}")
