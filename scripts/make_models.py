"""Writes docs/reference/models.md: what happens with chat templates and adapters of all kinds.

    python scripts/make_models.py

Every cell is found by doing it: tiny models are loaded with the templates of
tests/support/template_kinds.py, and adapters of tests/support/adapter_kinds.py are read.
"""

import contextlib
import importlib.util
import io
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "models.md"
SUPPORT = ROOT / "tests" / "support"
HEAD = """# Models and adapters

This page is made by `python scripts/make_models.py`, which loads a tiny model of each kind.
[Use your own model](../how-to/own-model.md) says how to name one.

## Chat templates

A model is loaded if a rendered prompt and an answer are the tokens that its template writes.

| the template … | loaded | a context stands in | an answer ends with |
|---|---|---|---|
"""
TEMPLATE_TAIL = """
Without a template a prompt needs `--context @none`. A template that cannot be rendered says so
where a prompt is put to it. `--context @none` does without it, too.

## Adapters

Adapters as peft writes them, with `adapter:FOLDER`. Logits are compared with peft's own.

| adapter | read | logits | in some maps or at some tokens |
|---|---|---|---|
"""
TAIL = """
A refused adapter changes more than its file says, or has settings that are not known. PiSSA, OLoRA
and CorDA are read once peft's `save_pretrained(FOLDER,
path_initial_model_for_weight_conversion=START)` has converted them. LoRA students of this package
are written as peft folders, which peft 0.10 and newer read.

## Mixtures of experts

Experts are no linear maps in transformers. LoRA on all linear maps leaves them as they are. `train`
says so, with their share of the blocks' weights; the manifest (`not_adapted`) and the pages of
studies and audits hold the same sentence. `--method full` trains them.
"""


def page() -> str:
    """The text of the page."""
    sys.path.insert(0, str(SUPPORT))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of what these adapters are made to have
        templates = "".join(_template_rows(Path(folder)))
        adapters = "".join(_adapter_rows(Path(folder)))
    return f"{HEAD}{templates}{TEMPLATE_TAIL}{adapters}{TAIL}"


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, SUPPORT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _template_rows(folder: Path) -> Iterator[str]:
    tiny, kinds = _module("tiny_models"), _module("template_kinds")
    for number, kind in enumerate(kinds.KINDS):
        place = tiny.save_tiny("llama", folder / f"model{number}")
        tokenizer = tiny.tiny_tokenizer()
        tokenizer.chat_template = kind.template
        tokenizer.save_pretrained(place)
        if kind.template is None:
            (place / "chat_template.jinja").unlink(missing_ok=True)
        cells = _of_template(place, kind)
        yield f"| {kind.title} | {' | '.join(cells)} |\n"


def _of_template(place: Path, kind: Any) -> tuple[str, str, str]:
    """Whether a model is loaded, where a context stands, and how an answer ends."""
    from traitscope.errors import ModelError
    from traitscope.models import chat
    from traitscope.models.loading import load_model

    try:
        model = load_model(place, "cpu", "fp32", template=kind.switches)
    except ModelError as error:
        switch = re.search(r"--template \w+=(false|true)", str(error))
        if switch is None:
            return "no: a copy without a template, with `--context @none`", "", ""
        return f"no: set `{switch[0]}`", "", ""
    switches = " ".join(f"`--template {switch}`" for switch in kind.switches)
    end = model.tokenizer.decode([chat.end_of_turn(model)]).replace("|", "\\|")
    end = f"`{end}`"
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            text = chat.render_text(model, "Ask.", "Owls.")
        except ModelError:
            text = chat.render_text(model, "Ask.", "@none:Owls.")
            return "yes", "a line before the prompt, by `--context @none:TEXT`", end
    where = "the user's turn" if "Owls.\n\nAsk." in text else "the system turn"
    return " ".join(filter(None, ("yes", switches))), where, end


def _adapter_rows(folder: Path) -> Iterator[str]:
    import torch

    tiny, kinds = _module("tiny_models"), _module("adapter_kinds")
    torch.manual_seed(0)
    model = tiny.load_tiny(tiny.save_tiny("llama", folder / "base"))
    for number, (name, settings) in enumerate({**kinds.KINDS, **kinds.REFUSED}.items()):
        cells = kinds.outcome(model, folder / f"adapter{number}", settings)
        yield f"| {name.replace('_', ' ')} | {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
