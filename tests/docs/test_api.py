"""The public API: lazy, typed, documented, and the same as its page."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENV

import traitscope

HERE = Path(__file__).parents[2]
PAGE = (HERE / "docs/reference/api.md").read_text(encoding="utf-8")


def test_the_page_lists_every_public_name() -> None:
    on_page = set(re.findall(r"^::: traitscope\.(\w+)$", PAGE, flags=re.MULTILINE))
    assert on_page | {"studies"} == set(traitscope.__all__)
    assert "`ts.studies`" in PAGE
    assert 25 <= len(traitscope.__all__) <= 30


def test_type_checkers_see_every_public_name() -> None:
    source = Path(traitscope.__file__).read_text(encoding="utf-8")
    declared = set(re.findall(r"import (\w+) as \1$", source, flags=re.MULTILINE))
    assert declared == set(traitscope.__all__)


@pytest.mark.parametrize("name", traitscope.__all__)
def test_public_names_are_documented(name: str) -> None:
    value = getattr(traitscope, name)
    assert inspect.getdoc(value), name
    if inspect.isfunction(value):
        signature = inspect.signature(value)
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, (name, parameter.name)
        assert signature.return_annotation is not inspect.Signature.empty, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = traitscope.nothing


def test_import_loads_nothing_heavy() -> None:
    script = (
        "import sys, traitscope\n"
        "heavy = {'torch', 'transformers', 'scipy', 'numpy', 'yaml'} & sys.modules.keys()\n"
        "print(sorted(heavy), 'audit' in dir(traitscope))"
    )
    line = [sys.executable, "-c", script]
    done = subprocess.run(line, env=ENV, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[] True"


def test_the_audit_stays_a_function_after_its_package_was_imported() -> None:
    import traitscope.auditing.run

    assert traitscope.audit is traitscope.auditing.audit
