"""The steps from a config to an open run directory.

Stages use this through `stages.registry`, which knows each stage's name and further inputs.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from traitscope import distributed
from traitscope.config import common
from traitscope.config.common import OnModel, Output
from traitscope.config.fields import addressed, flag_of, names_layers, use_of
from traitscope.data.domains.task import checked
from traitscope.data.hub.files import is_of_hub, local_copy
from traitscope.data.prompt_files import read_prompts
from traitscope.errors import VectorError
from traitscope.interventions import intervention
from traitscope.interventions.adapters import origin, settings
from traitscope.interventions.checks.files import check_intervention_files
from traitscope.interventions.checks.vectors import check_direction
from traitscope.interventions.intervention import (
    Adapter,
    Intervention,
)
from traitscope.interventions.short_form import parse_all, parse_each, vector_file
from traitscope.interventions.vector import load_vector
from traitscope.models.hardware import NF4, default_dtype, resolve_device
from traitscope.models.identity import pickled
from traitscope.models.identity.finding import check_layers, short_digest
from traitscope.models.templates import day
from traitscope.models.templates.variables import check_template
from traitscope.runs import manifests, store
from traitscope.runs.model_cache import address_name, model_digests

Inputs = dict[str, Path | store.Run]
"""Files and sealed runs that a run is made from, by name."""
TEMPLATE_DATE = "template_date"
"""Key of a manifest: the day that the chat template was given, where it reads one."""
BARE = "@none"
"""Begins a context that has no template."""
REMARKS = "remarks"
"""Key of a manifest: sentences on what a run was made from that its user should know."""
_said_of_weights: set[tuple[str, str]] = set()
"pairs of digests of which this process has said that one stands for the other"
WEIGHT_FILES = ("adapter_model.safetensors", intervention.FULL_WEIGHTS, intervention.TRAINED)
"""Names of the file that holds a student's weights: LoRA, full weights, one trained vector."""


def settled(config: Any) -> Any:
    """The config with `auto` replaced by what this machine has, and data of the hub by local files.

    The address of a run then says what was computed. Raises DataError for data of the hub that
    cannot be fetched, ModelError for a device that is not there.
    """
    local_copies = {}
    for name, value in vars(config).items():
        if isinstance(value, Path) and is_of_hub(value):
            local_copies[name] = local_copy(value)
    if local_copies:
        config = dataclasses.replace(config, **local_copies)
    if not isinstance(config, OnModel):
        return config
    device = resolve_device(config.device)
    dtype = default_dtype(device) if config.dtype == "auto" else config.dtype
    return dataclasses.replace(config, device=device, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Described:
    """A computation before it is run: what its address and its config.json are made of."""

    config: dict[str, Any]
    """The whole config as JSON values, paths replaced by names of inputs."""
    identity: dict[str, Any]
    """The part of the config that enters the address."""
    former_identities: tuple[dict[str, Any], ...]
    """What entered it when settings that change speed only, and the name of the model, still
    did."""
    inputs: Inputs
    """Files and sealed runs that the config names, and further ones."""
    model: str | None
    """Digest of the model's files; None for a stage without a model."""
    former_models: tuple[str, ...] = ()
    """Digests that the model had in earlier versions, or that the user vouches for."""

    def input_digests(self) -> dict[str, str]:
        """The digests of the inputs."""
        digests = {}
        for name, source in self.inputs.items():
            _, digests[name] = store.source_of(name, source)
        return digests


@dataclasses.dataclass(frozen=True)
class RunPlace:
    """Where the run of a computation lies, or will lie."""

    stage: str
    """The stage's name, present or former."""
    identity: dict[str, Any]
    """The part of the config that entered the address."""
    model: str | None
    """The digest of the model that entered it."""
    path: Path
    """The run directory."""


def described(config: Any, further: Mapping[str, Path | store.Run] | None = None) -> Described:
    """The description of a settled config, with `further` inputs besides those that it names.

    Raises DataError for an input that does not exist, and VectorError for an intervention whose
    files do not exist. Raises ConfigError for a layer that the model lacks and for a variable that
    its chat template does not read. Raises StoreError for a run that is unfinished or damaged.
    """
    if isinstance(config, OnModel):
        check_template(config.model, config.template)
        _check_layers(config, config.model)
    plain, paths = _plain(config)
    inputs: Inputs = {name: store.source_at(path) for name, path in paths.items()}
    inputs.update(further or {})
    models: tuple[str | None, ...] = (None,)
    if isinstance(config, OnModel):
        models = model_digests(config.model, config.same_as)
    identities = [addressed(config, plain), addressed(config, plain, speed_enters=True)]
    if isinstance(config, OnModel):
        present, as_given = address_name(config.model, config.same_as), identities
        identities = []
        for name in (present, *models[1:]):
            identities += [{**identity, "model": name} for identity in as_given]
        identities += as_given
    distinct = []
    for identity in identities:
        if identity not in distinct:
            distinct.append(identity)
    return Described(plain, distinct[0], tuple(distinct[1:]), inputs, models[0], models[1:])


def _check_layers(config: Any, model: str) -> None:
    """Raise ConfigError for a layer in a config that a model lacks, before the model is loaded."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if common.is_taught(field.name, value):
            each_is_one = field.name == "steered"  # a teacher each
            for item in parse_each(value) if each_is_one else parse_all(value):
                check_layers(getattr(item, "layers", ()), model, "an intervention")
        elif dataclasses.is_dataclass(value):
            _check_layers(value, model)
        elif names_layers(field) and value is not None:
            layers = value if isinstance(value, tuple) else (value,)
            check_layers(layers, model, flag_of(field.name))


def place_of(names: tuple[str, ...], computation: Described, folder: Path) -> RunPlace:
    """The place of a computation below `folder`.

    `names` are the stage's name and its former ones. A sealed run is taken under any of them. It is
    also taken at addresses of earlier rules. Settings that change speed only, the model's name and
    other digests of it entered these. Otherwise the place is that of the present rules, whether
    a run is there or not.
    """
    identities = (computation.identity, *computation.former_identities)
    models = (computation.model, *computation.former_models)
    digests = computation.input_digests()
    places = []
    for name, identity, model in product(names, identities, models):
        address = store.address(name, identity, digests, model)
        places.append(RunPlace(name, identity, model, folder / f"{name}-{address}"))
    for place in places:
        if manifests.is_sealed(place.path):
            return place
    return places[0]


@contextmanager
def opened(
    names: tuple[str, ...],
    config: Any,
    out: Output,
    resumable: bool = False,
    inputs: Mapping[str, Path | store.Run] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Iterator[store.Run]:
    """The run directory of a settled config; see store.stage_run.

    `names` are the stage's name and its former ones, `inputs` further inputs, `facts` further
    values for the manifest. A run that ends before it has written anything leaves no directory,
    whatever ended it.
    """
    out.check_folder()
    computation = described(config, inputs)
    folder = out.root / out.study
    place = place_of(names, computation, folder)
    recorded = dict(facts or {})
    with store.stage_run(
        folder,
        place.stage,
        computation.config,
        computation.inputs,
        place.model,
        resumable,
        recorded,
        place.identity,
    ) as run:
        try:
            if run.sealed:
                _say_other_weights(config, run)
            else:
                check_files(config)
                recorded.update(_facts_of(config, computation.inputs))
            yield run
        except BaseException:
            store.discard_if_empty(run)
            raise


def _say_other_weights(config: Any, run: store.Run) -> None:
    """Say, once, that a run is taken although it was computed on other weights.

    Somebody vouched that they are a copy, with `same_as`, when it was computed or now.
    """
    if not isinstance(config, OnModel):
        return
    manifest = run.manifest()
    computed_on = manifest.get("same_as", {}).get("own_digest", manifest.get("model"))
    here = model_digests(config.model, None)
    if computed_on in (None, *here) or (computed_on, here[0]) in _said_of_weights:
        return
    _said_of_weights.add((computed_on, here[0]))
    distributed.say(
        f"{run.path.name} was computed on a model with digest {computed_on}, and {config.model} has"
        f" {here[0]}: --same-as said that one is a copy of the other, so these numbers are taken"
        " for both"
    )


def _facts_of(config: Any, inputs: Inputs) -> dict[str, Any]:
    """What a manifest says of the machine and the model behind a config; nothing without a model.

    Raises VectorError for an adapter among the inputs that is one of another model.

    torch is imported, so this is left until something is to be computed.
    """
    if not isinstance(config, OnModel):
        return {}
    import torch

    facts = {"device": _device_name(config.device), "threads": torch.get_num_threads()}
    if config.same_as is not None:
        own = model_digests(config.model)[0]
        facts["same_as"] = {"named": config.same_as, "own_digest": own}
    remarks = _notes_on_adapters(config, inputs)
    day_read = _day_read(config)
    if day_read is not None:
        facts[TEMPLATE_DATE] = day_read
        remarks.append(day.sentence(config.model, day_read))
    for remark in remarks:
        distributed.say(remark)
    if remarks:
        facts[REMARKS] = remarks
    return facts


def _day_read(config: OnModel) -> str | None:
    """The day that the model's chat template is given, where it reads one and is used."""
    if str(getattr(config, "context", None) or "").startswith(BARE):
        return None
    from traitscope.models.loading import day_of_template

    return day_of_template(config.model, config.template)


def _notes_on_adapters(config: OnModel, inputs: Inputs) -> list[str]:
    """What to know of peft folders among the inputs."""
    digests = []
    for digest in model_digests(config.model, config.same_as):
        digests.append(short_digest(f"{digest}/{NF4}") if config.dtype == NF4 else digest)
    notes: dict[str, None] = {}
    for folder in _adapter_folders(config, inputs):
        notes.update(dict.fromkeys(origin.notes_on(folder, config.model, digests)))
    return list(notes)


def _adapter_folders(config: OnModel, inputs: Inputs) -> list[Path]:
    """Peft folders among the inputs, and those of runs that are among the interventions."""
    folders = []
    for source in inputs.values():
        if isinstance(source, Path) and source.name == settings.CONFIG:
            folders.append(source.parent)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for item in parse_each(value) if common.is_taught(field.name, value) else ():
            if isinstance(item, Adapter) and (Path(item.folder) / settings.CONFIG).is_file():
                folders.append(Path(item.folder))
    return list(dict.fromkeys(folders))


def check_files(config: Any) -> None:
    """Read the prompts, vectors and settings of adapters that a config names.

    A file that cannot be used is so named before a model is loaded. Raises DataError and
    VectorError.
    """
    for field in dataclasses.fields(config):
        path = getattr(config, field.name)
        if path is None:
            continue
        if use_of(field) == "prompts":
            read_prompts(path, domain=checked(getattr(config, "domain", None)))
        elif use_of(field) == "vector":
            check_direction(load_vector(vector_file(path)), f"{flag_of(field.name)} {path}")
        elif common.is_taught(field.name, path):
            # export --ablate may take the row of another layer
            check_intervention_files(parse_each(path), at_layers=field.name != "ablate")


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def _plain(config: Any) -> tuple[dict[str, Any], dict[str, Path]]:
    """The config as JSON values, every path replaced by the name of an input, and those inputs."""
    inputs: dict[str, Path] = {}
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        plain[field.name] = _plain_value(field.name, value, inputs)
    return plain, inputs


def _plain_value(name: str, value: Any, inputs: dict[str, Path]) -> Any:
    """A field's value as JSON; paths in it are added to `inputs`."""
    if common.is_taught(name, value):
        plain = []
        for place, item in enumerate(parse_each(value)):
            plain.append(_plain_intervention(item, f"{name}{place}", inputs))
        return plain
    if isinstance(value, Path):
        inputs[name] = value
        return manifests.input_value(name)
    if isinstance(value, tuple) and any(isinstance(item, Path) for item in value):
        plain = []
        for place, path in enumerate(value):
            inputs[f"{name}{place}"] = path
            plain.append(manifests.input_value(f"{name}{place}"))
        return plain
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def _plain_intervention(item: Intervention, name: str, inputs: dict[str, Path]) -> dict[str, Any]:
    """An intervention as JSON; its file or folder is the input `name`, followed by the place inside
    a run."""
    data = intervention.to_json(item)
    for key in ("vector", "folder"):
        if key not in data:
            continue
        path = Path(data[key])
        source = _vector_at(path) if key == "vector" else _student_at(path)
        inputs[name] = source
        adapter_config = path / "adapter_config.json"
        if source.parent == path and adapter_config.is_file():
            inputs[f"{name}_config"] = adapter_config
        inside = path.relative_to(source).as_posix() if source in path.parents else ""
        data[key] = manifests.input_value(name, inside)
    return data


def _vector_at(path: Path) -> Path:
    """The file of a vector."""
    if not path.is_file():
        raise VectorError(f"no vector file at {path}; make one with: traitscope extract")
    return path


def _student_at(folder: Path) -> Path:
    """The run that a student's folder lies in; outside any run, the file that stands for it."""
    run = store.run_folder(folder)
    if run is not None and folder.is_dir():
        return run
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise VectorError(
        pickled.in_adapter(folder)
        or f"{folder} holds no student: expected a run of `train`, or a folder with"
        " adapter_model.safetensors; name one"
    )
