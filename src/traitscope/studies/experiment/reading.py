"""The reader of an experiment's file: defaults that follow from others, and what is refused.

Everything is refused before anything is computed; the message names the place in the file.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from traitscope.config import parsing
from traitscope.config.recipe import SAMPLED_RECIPE
from traitscope.data.traits import trait_name
from traitscope.errors import ConfigError
from traitscope.plain_values import NotPlainError, from_yaml
from traitscope.studies.experiment.file import (
    ANSWER_TOKENS,
    JUDGED_TOKENS,
    MAKERS,
    OTHER_TRAIT,
    PROMPT,
    RANDOM,
    ROWS,
    STRENGTH,
    UNMODIFIED,
    Experiment,
    Students,
    Teacher,
    judge_of,
)

LARGEST_SEED, MOST_SEEDS = 2**31, 10**4
"a seed and a number of seeds above are not meant"


def text_of(file: Path) -> str:
    """Return the text of a file, with its own ends of lines.

    Raises ConfigError where it cannot be read.
    """
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise ConfigError(
            f"experiment {file}: {error.strerror}; expected a YAML or JSON file; check the path, or"
            " write one with --example FILE"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"experiment {file} is no YAML or JSON: {error}; mend it") from None


def plain_of(text: str, file: Path) -> Any:
    """Return the plain values of YAML or JSON; an empty text holds no keys.

    Raises ConfigError for any other text.
    """
    try:
        plain = from_yaml(text)
    except NotPlainError as error:
        raise ConfigError(f"experiment {file} is no YAML or JSON: {error}; mend it") from None
    return {} if plain is None else plain


def read_experiment(plain: Any, where: str, first_seed: int = 1) -> Experiment:
    """Return the experiment of plain values, with every default that follows from others filled in.

    Raises ConfigError, naming the place, for an unknown key, a value of the wrong type, and values
    that do not fit together. Raises TraitError for a trait that is none.
    """
    if isinstance(plain, dict):
        plain = _with_recipes(plain)
        for controls in _controls_in(plain):
            _check_controls(controls, where)
    try:
        experiment = parsing.from_dict(Experiment, plain, where)
        return _with_defaults(experiment, first_seed)
    except ConfigError as error:
        text = str(error)
        raise (error if text.startswith(where) else ConfigError(f"{where}: {text}")) from None


def _with_recipes(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the plain values with whole recipes: that of the experiment, and those of students."""
    usual = dataclasses.asdict(SAMPLED_RECIPE)
    if isinstance(plain.get("recipe"), dict):
        usual = usual | plain["recipe"]
        plain = plain | {"recipe": usual}
    teachers = plain.get("teachers")
    if not isinstance(teachers, dict):
        return plain
    filled = {}
    for name, teacher in teachers.items():
        students = teacher.get("students") if isinstance(teacher, dict) else None
        if isinstance(students, dict) and isinstance(students.get("recipe"), dict):
            students = students | {"recipe": usual | students["recipe"]}
            teacher = teacher | {"students": students}
        filled[name] = teacher
    return plain | {"teachers": filled}


def _controls_in(plain: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield the lists of controls: those of the experiment, and those of students."""
    holders = [plain]
    teachers = plain.get("teachers")
    for teacher in teachers.values() if isinstance(teachers, dict) else ():
        if isinstance(teacher, dict) and isinstance(teacher.get("students"), dict):
            holders.append(teacher["students"])
    for holder in holders:
        if isinstance(holder.get("controls"), list):
            yield holder["controls"]


def _check_controls(controls: Sequence[Any], where: str) -> None:
    """Raise ConfigError for a control that is none, with the nearest right one."""
    words, keys = (UNMODIFIED, RANDOM), (OTHER_TRAIT, ROWS, PROMPT)
    for control in controls:
        named = control
        if isinstance(control, dict) and len(control) == 1:
            (named,) = control
        is_known = named in (keys if isinstance(control, dict) else words)
        if is_known and (isinstance(control, str) or isinstance(control[named], str)):
            continue
        near = get_close_matches(str(named), (*words, *keys), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{where}: controls holds {control!r}; {hint}expected {UNMODIFIED}, {RANDOM},"
            f" {{{OTHER_TRAIT}: TRAIT}}, {{{PROMPT}: TEXT}} or {{{ROWS}: FILE}}; correct it"
        )


def _with_defaults(experiment: Experiment, first_seed: int) -> Experiment:
    """Return the experiment with its teachers, controls and seeds written out and checked."""
    if not experiment.traits:
        raise ConfigError("traits is empty; expected one or more; name some")
    names = experiment.trait_names
    if len(set(names)) < len(names):
        raise ConfigError(f"traits are called {names}; expected distinct names; rename one")
    teachers = {}
    for name, teacher in experiment.teachers.items():
        teachers[name] = _checked_teacher(experiment, name, teacher)
    having = {trait_name(teacher.trait) for teacher in teachers.values()}
    for trait in experiment.traits:
        if trait_name(trait) not in having:
            teachers.setdefault(trait_name(trait), Teacher(trait=trait, steer=STRENGTH))
    controls = experiment.controls
    if controls is None:
        all_change_base = all(teacher.changes_base for teacher in teachers.values())
        controls = (UNMODIFIED, RANDOM) if all_change_base else (UNMODIFIED,)
    seeds = _seeds(experiment.seeds, first_seed)
    experiment = dataclasses.replace(experiment, teachers=teachers, controls=controls, seeds=seeds)
    experiment = _with_scores(experiment)
    _check_together(experiment)
    return experiment


def _with_scores(experiment: Experiment) -> Experiment:
    """Return the experiment with the score that decides and with the length of answers.

    Raises ConfigError for traits of both kinds, and for a score that behaviours do not have.
    """
    measures, primary = experiment.measures, experiment.primary
    judged = [trait for trait in experiment.traits if judge_of(trait)]
    if judged and len(judged) < len(experiment.traits):
        raise ConfigError(
            f"traits hold {', '.join(map(trait_name, judged))}, scored by judges, beside traits"
            " that are scored by words; expected one kind, because one score decides; make two"
            " experiments"
        )
    if judged and primary.score not in (None, "judged"):
        raise ConfigError(
            f"primary: score is {primary.score}, and {judged[0]} is a behaviour without words;"
            " expected judged; drop score"
        )
    if judged and not measures.samples:
        raise ConfigError(
            f"measures: samples is 0, and the judges of {judged[0]} read sampled answers; expected"
            " 1 or more; raise samples"
        )
    data = experiment.data
    if judged and data.filter == "auto" and not data.about_numbers:
        data = dataclasses.replace(data, filter="none")  # there is no word to look for
    score = primary.score or ("judged" if judged else "target_logprob")
    length = measures.max_new_tokens or (JUDGED_TOKENS if judged else ANSWER_TOKENS)
    return dataclasses.replace(
        experiment,
        data=data,
        measures=dataclasses.replace(measures, max_new_tokens=length),
        primary=dataclasses.replace(primary, score=score),
    )


def _seeds(seeds: int | tuple[int, ...], first_seed: int) -> tuple[int, ...]:
    """Return the seeds, each once."""
    listed: tuple[int, ...] = ()
    if isinstance(seeds, tuple):
        listed = seeds
    elif seeds <= MOST_SEEDS:
        listed = tuple(range(first_seed, first_seed + seeds))
    wrong = [seed for seed in listed if not 0 <= seed < LARGEST_SEED]
    if not listed or wrong or len(set(listed)) < len(listed):
        raise ConfigError(
            f"seeds is {seeds if isinstance(seeds, int) else list(seeds)}; expected a number above"
            f" 0 and up to {MOST_SEEDS}, or a list of distinct seeds of 0 or more; correct it"
        )
    return listed


def _checked_teacher(experiment: Experiment, name: str, teacher: Teacher) -> Teacher:
    """Return a teacher with its trait; raise ConfigError where it is made in no way, or in two."""
    where = f"teachers.{name}"
    if teacher.vector and teacher.steer is None:
        raise ConfigError(
            f"{where} has a vector and is not steered; expected steer: STRENGTH beside it; add it"
        )
    if teacher.template is not None and teacher.model is None:
        raise ConfigError(
            f"{where} has a template and no model of its own; expected model: NAME beside it; leave"
            " it out, or give template to the whole experiment"
        )
    if len(teacher.makers) > 1 or not (teacher.makers or teacher.rows):
        given = " and ".join(teacher.makers) or "nothing"
        raise ConfigError(
            f"{where} is made by {given}; expected one of {', '.join(MAKERS)}, or rows; keep one"
        )
    if isinstance(teacher.prompt, str) and not teacher.prompt.strip():
        raise ConfigError(
            f"{where}: prompt is blank; expected true, for the trait's system prompt, or a text;"
            " fill it in"
        )
    if not name.strip() or "/" in name or name in (UNMODIFIED, "base"):
        raise ConfigError(f"{where}: {name!r} cannot name a teacher; expected another; rename it")
    if teacher.trait and trait_name(teacher.trait) not in experiment.trait_names:
        raise ConfigError(
            f"{where}: trait is {teacher.trait!r}; expected one of traits,"
            f" {', '.join(experiment.trait_names)}; add it there"
        )
    by_name = dict(zip(experiment.trait_names, experiment.traits, strict=True))
    wanted = trait_name(teacher.trait) if teacher.trait else name
    return dataclasses.replace(teacher, trait=by_name.get(wanted, experiment.traits[0]))


def _check_together(experiment: Experiment) -> None:
    """Raise ConfigError for a control or targets that some teacher cannot have."""
    for name, teacher in experiment.teachers.items():
        students, where = experiment.students_of(name), f"teachers.{name}"
        _check_distinct(students.controls or ())
        _check_students(experiment, students, where)
        _check_targets(experiment, teacher, students, where)
        _check_controls_of(teacher, students.controls or (), where)
    _check_other_traits(experiment)
    if experiment.data.filter == "trait-words" and judge_of(experiment.traits[0]):
        raise ConfigError(
            f"data: filter is trait-words, and {experiment.traits[0]} is a behaviour without words;"
            " expected none or numbers; change it, and filter the rows of a behaviour by a judge"
            " before, as rows from elsewhere"
        )
    if experiment.primary.score in ("whole_word", "first_word") and not experiment.measures.samples:
        raise ConfigError(
            f"primary: score is {experiment.primary.score}, and measures.samples is 0; expected"
            " sampled answers; raise samples"
        )
    if experiment.primary.score == "judged" and not experiment.judge:
        raise ConfigError(
            "primary: score is judged, and neither traits nor measures have a judge; expected one;"
            " add measures.judge, or name a trait with judges"
        )


def _check_students(experiment: Experiment, students: Students, where: str) -> None:
    """Raise ConfigError for students of more rows or seeds than the experiment has."""
    most = {"rows": experiment.data.rows, "seeds": len(experiment.all_seeds)}
    for name, number in most.items():
        if getattr(students, name) > number:
            raise ConfigError(
                f"{where}.students: {name} is {getattr(students, name)}; expected {number} or"
                f" fewer, as the experiment has; lower it, or raise {name} of the experiment"
            )


def _check_targets(
    experiment: Experiment, teacher: Teacher, students: Students, where: str
) -> None:
    """Raise ConfigError for targets that a teacher, or a control of it, does not have."""
    recipe = students.recipe or experiment.recipe
    if recipe.targets == "preference":
        raise ConfigError(
            f"{where}: recipe.targets preference needs pairs of answers, and teachers write single"
            " ones; expected sampled or soft; train on pairs with: traitscope train --targets"
            " preference"
        )
    if recipe.targets == "soft" and not teacher.changes_base:
        raise ConfigError(
            f"{where} has no distributions for recipe.targets soft; expected sampled, or a"
            " teacher that is the model with interventions; change one"
        )
    if recipe.soft_over == "allowed" and teacher.rows:
        raise ConfigError(
            f"{where} has rows from elsewhere, so which tokens could be sampled is not known;"
            " expected recipe.soft_over vocabulary; change it"
        )
    if recipe.targets == "soft" and ROWS in _keys(students.controls or ()):
        raise ConfigError(
            f"controls hold {ROWS}, which have no distributions for recipe.targets soft; expected"
            f" {RANDOM} or {{{OTHER_TRAIT}: TRAIT}}; change one"
        )
    if recipe.soft_over == "allowed" and experiment.data.vocabulary == "free":
        raise ConfigError(
            "recipe.soft_over is allowed, and data.vocabulary is free, which allows every token;"
            " expected vocabulary; change one"
        )


def _check_controls_of(
    teacher: Teacher, controls: Sequence[str | dict[str, str]], where: str
) -> None:
    """Raise ConfigError for a control that cannot be made for a teacher."""
    if RANDOM in controls and not teacher.changes_base:
        raise ConfigError(
            f"controls hold {RANDOM}, and {where} is not the model with interventions, so its KL"
            f" is not measured; expected {UNMODIFIED} or {{{ROWS}: FILE}}; drop {RANDOM}"
        )
    if RANDOM in controls and (teacher.steer == 0 or teacher.interventions == ()):
        raise ConfigError(
            f"{where} is the unmodified model, which no random vector can equal in KL; expected"
            f" another teacher; drop {RANDOM} from controls"
        )
    if OTHER_TRAIT in _keys(controls) and teacher.maker not in ("steer", "prompt"):
        raise ConfigError(
            f"controls hold {OTHER_TRAIT}, and {where} is neither steered nor prompted, so no other"
            f" trait can be given in the same way; drop {OTHER_TRAIT}"
        )


def _check_distinct(controls: Sequence[str | dict[str, str]]) -> None:
    """Raise ConfigError for a control that is there twice: its claim would count twice."""
    seen = set()
    for control in controls:
        named = control
        if isinstance(control, dict):
            ((key, value),) = control.items()
            if key == ROWS:
                value = str(Path(value).resolve())
            named = f"{key}: {trait_name(value) if key == OTHER_TRAIT else value}"
        if named in seen:
            raise ConfigError(
                f"controls hold {control!r} twice; expected distinct controls, of distinct names;"
                " drop one"
            )
        seen.add(named)


def _check_other_traits(experiment: Experiment) -> None:
    """Raise ConfigError for a control that serves no teacher: it has the trait of each of them.

    Of several teachers it serves those of other traits.
    """
    serves: dict[str, bool] = {}
    for name, teacher in experiment.teachers.items():
        for control in experiment.students_of(name).controls or ():
            other = control.get(OTHER_TRAIT) if isinstance(control, dict) else None
            if other is not None:
                is_other = trait_name(other) != trait_name(teacher.trait)
                serves[other] = serves.get(other, False) or is_other
    for other, is_needed in serves.items():
        if not is_needed:
            raise ConfigError(
                f"controls hold {OTHER_TRAIT} {other!r}, and {trait_name(other)!r} is the trait of"
                " every teacher that it would serve; expected another trait; name one"
            )
    for trait in experiment.company or ():
        if trait_name(trait) in experiment.trait_names:
            raise ConfigError(
                f"company holds {trait!r}, which is called as one of traits,"
                f" {trait_name(trait)!r}; expected other traits; drop or rename it"
            )


def _keys(controls: Sequence[str | dict[str, str]]) -> list[str]:
    """Return the keys of the controls that are named by a word and a value."""
    keys = []
    for control in controls:
        if isinstance(control, dict):
            keys += control
    return keys
