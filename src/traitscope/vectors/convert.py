"""The command `convert`: a steering vector from one tool's file into another's."""

import shlex
import sys
from pathlib import Path

from traitscope import atomic_files
from traitscope.config.commands import ConvertConfig
from traitscope.config.common import TRAIT_UNKNOWN, Output
from traitscope.config.fields import changed_flags
from traitscope.config.stages import MeasureConfig
from traitscope.data.traits import bundled_traits
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.checks.vectors import check_vector
from traitscope.interventions.foreign import arrays, conversion, files, layer_rows
from traitscope.interventions.foreign.layer_rows import BlockRows
from traitscope.interventions.intervention import Steer
from traitscope.interventions.short_form import to_short
from traitscope.interventions.vector import load_vector, vector_bytes
from traitscope.models import chat
from traitscope.models.identity.finding import check_layers
from traitscope.models.identity.words import CONTEXT, model_words
from traitscope.models.loading import outline
from traitscope.models.model import Model

AUTO = "auto"
"what stands for a setting that the file tells"


def run_convert(config: ConvertConfig, out: Output) -> dict:
    """Write the file, and say which blocks it has rows for and how its layers were counted.

    Raises ConfigError for a setting that is missing, VectorError for rows that do not fit.
    """
    source, target = config.source, config.target
    if source.resolve() == target.resolve():
        raise ConfigError(f"{source} would be written over; name another file to write")
    if target.is_file():
        raise ConfigError(
            f"{target} exists already; expected a new file, because nothing is written over; name"
            " another one, or delete it"
        )
    kind = files.format_for(target) if config.to == AUTO else config.to
    model = None
    if config.model:
        model = outline(config.model, config.template, same_as=config.same_as)
    if model is not None and config.layer is not None:
        check_layers((config.layer,), config.model, "--layer")
    if kind == files.OWN and files.is_own(source):
        raise ConfigError(
            f"{source} is a vector file of Traitscope already; name another format with --to"
        )
    read_as, blocks = _read(config, model)
    if not any(row.any() for row in blocks.rows.values()):
        raise VectorError(
            f"{source}: all {len(blocks.rows)} rows are zero; expected a direction; make the vector"
            " again"
        )
    atomic_files.write_bytes(target, _written(blocks, kind, target, model, str(source)))
    n_layers = model.n_layers if model is not None else blocks.n_layers
    summary = _summary(blocks, read_as, kind, config, n_layers)
    if kind == files.OWN and model is not None:
        _print_next(blocks, config, model, out)
    return summary


def _read(config: ConvertConfig, model: Model | None) -> tuple[str, BlockRows]:
    """The format of the file that is read, and its rows by block."""
    path = config.source
    if config.from_ == files.OWN or (config.from_ == AUTO and files.is_own(path)):
        vector = load_vector(path)
        if model is not None:
            vector = check_vector(vector, model, str(path), may_be_zero=True)
        return files.OWN, conversion.blocks_of(vector, config.layer)
    kind = "" if config.from_ == AUTO else config.from_
    layers_are = "" if config.layers_are == AUTO else config.layers_are
    return files.in_blocks(path, kind, layers_are, config.layer)


def _written(blocks: BlockRows, kind: str, target: Path, model: Model | None, where: str) -> bytes:
    """The content of the file that is written."""
    if kind == files.OWN:
        if model is None:
            raise ConfigError(
                "--model is missing: a vector file of Traitscope says which model it is for; name"
                " the model that the vector was made for"
            )
        return vector_bytes(conversion.vector_of(blocks, model, where))
    if model is not None:
        layer_rows.fitted(blocks, model.n_layers, model.d_model, model.name, where)
    return files.file_bytes(blocks, kind, target, conversion.target_of(model, blocks.n_layers))


def _summary(
    blocks: BlockRows, read_as: str, kind: str, config: ConvertConfig, n_layers: int | None
) -> dict:
    """What the command answers, which it prints, too.

    n_layers: Number of blocks of the model, where it is known.
    """
    target = config.target
    summary = {
        "status": "ok",
        "file": str(target),
        "from": read_as,
        "to": kind,
        "blocks": sorted(blocks.rows),
        "d_model": blocks.d_model,
    }
    behind_norm = blocks.about.get(layer_rows.BEHIND_NORM)
    if behind_norm in blocks.rows:
        summary["behind_final_norm"] = behind_norm
    if kind == "repeng" and 0 in blocks.rows:
        summary["left_out"] = [0]
    if kind in files.WITH_ALL_BLOCKS:
        every = range(n_layers or max(blocks.rows) + 1)
        summary["zero_rows"] = [block for block in every if block not in blocks.rows]
    said = layer_rows.ranges(blocks.rows)
    which = "block" if len(blocks.rows) == 1 else "each of the blocks"
    print(f"{read_as} to {kind}: a row of {blocks.d_model} numbers for {which} {said}")
    if summary.get("zero_rows"):
        zeros = layer_rows.ranges(dict.fromkeys(summary["zero_rows"]))
        print(f"no row for {zeros}: the format has one for every block, so zeros stand there")
    if "behind_final_norm" in summary:
        print(
            f"block {behind_norm}: in files of {read_as} the last row was taken behind the final"
            " norm, so it is no direction of what leaves that block; steer at another one, unless"
            " convert wrote the file"
        )
    if "left_out" in summary:
        print("block 0: left out, llama.cpp refuses it")
    if kind == "repeng" and not (config.model or blocks.about.get(layer_rows.MODEL_HINT)):
        print(
            f"model_hint: {arrays.UNKNOWN}; repeng compares it where vectors are added; --model"
            " MODEL writes the model's family"
        )
    print(f"result: {target}", file=sys.stderr)
    return summary


def _print_next(blocks: BlockRows, config: ConvertConfig, model: Model, out: Output) -> None:
    """Say how one would steer with the written file, on a model with a chat template or without."""
    context = None if model.tokenizer.chat_template else chat.BARE
    words = model_words({**vars(config), CONTEXT: context})
    words += changed_flags(Output(root=out.root, study=out.study))
    place = f"steer:{config.target},layers={_usual_block(blocks)},alpha=1,scale=raw"
    if "," in str(config.target):
        place = to_short(Steer(config.target, layer=_usual_block(blocks), alpha=1, scale="raw"))
    words = ["traitscope", "measure", *words, "--interventions", place, "--trait"]
    named = [path.stem for path in (config.target, config.source)]
    known = [name for name in named if name in bundled_traits()]
    if not known:
        print(f"traitscope: {TRAIT_UNKNOWN.format(usual=MeasureConfig.trait)}", file=sys.stderr)
    words.append(next(iter(known), MeasureConfig.trait))
    print(f"next:   {shlex.join(words)}", file=sys.stderr)


def _usual_block(blocks: BlockRows) -> int:
    """The middle one of the blocks whose rows can be added, without one behind the final norm."""
    behind_norm = blocks.about.get(layer_rows.BEHIND_NORM)
    filled = [number for number in sorted(blocks.rows) if blocks.rows[number].any()]
    usual = [number for number in filled if number != behind_norm] or filled
    return usual[len(usual) // 2]
