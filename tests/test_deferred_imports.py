"""Stand-ins for modules: imported when they are used, and then as ever."""

import subprocess
import sys
from pathlib import Path

import pytest

from traitscope import deferred_imports
from traitscope.deferred_imports import SWITCH, deferred, enable

CONTENT = """
print("imported")
class Shape:
    def __init__(self, size=1):
        self.size = size
    def __eq__(self, other):
        return isinstance(other, Shape) and self.size == other.size
    __hash__ = None
LARGEST = Shape(9)
"""


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of the command."""
    monkeypatch.setattr(deferred_imports, "_enabled", False)  # put back afterwards
    enable()


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> str:
    """The name of a package with a module `shapes` that says when it is imported."""
    (tmp_path / "heavy_package").mkdir()
    (tmp_path / "heavy_package" / "__init__.py").write_text("")
    (tmp_path / "heavy_package" / "shapes.py").write_text(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    yield "heavy_package.shapes"
    for name in ("heavy_package", "heavy_package.shapes"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("how", ["another program", "switched off"])
def test_without_leave_everything_is_imported_plainly(
    heavy: str, how: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(deferred_imports, "_enabled", False)
    if how == "switched off":
        monkeypatch.setenv(SWITCH, "off")
        enable()
    with deferred((heavy,)):
        from heavy_package.shapes import Shape
    assert capsys.readouterr().out == "imported\n"
    assert Shape is sys.modules[heavy].Shape


@pytest.mark.usefixtures("enabled")
def test_a_name_is_imported_when_it_is_used(heavy: str, capsys) -> None:
    with deferred((heavy,)):
        from heavy_package.shapes import LARGEST, Shape

        assert not isinstance(3, Shape) and not issubclass(int, Shape)
    assert heavy not in sys.modules and capsys.readouterr().out == ""
    made = Shape(2)
    assert capsys.readouterr().out == "imported\n"
    import heavy_package.shapes as real

    assert type(made) is real.Shape and made.size == 2
    assert isinstance(made, Shape) and not isinstance(3, Shape)
    assert LARGEST.size == 9


@pytest.mark.usefixtures("enabled")
def test_a_use_inside_the_block_ends_the_stand_ins(heavy: str, capsys) -> None:
    with deferred((heavy,)):
        from heavy_package.shapes import Shape

        class Square(Shape):
            """A subclass is one of the real class."""

        assert capsys.readouterr().out == "imported\n"
        import heavy_package.shapes as real
    assert issubclass(Square, real.Shape) and Square(4).size == 4


@pytest.mark.usefixtures("enabled")
def test_calls_may_wait_for_their_module(heavy: str, capsys) -> None:
    with deferred((heavy,), calls_too=True):
        from heavy_package.shapes import Shape

        made = Shape(5)
    assert capsys.readouterr().out == ""
    assert made.size == 5 and made == Shape(5)
    assert isinstance(made, Shape) and capsys.readouterr().out == "imported\n"


@pytest.mark.usefixtures("enabled")
def test_what_is_imported_already_has_no_stand_in(heavy: str, capsys) -> None:
    import heavy_package.shapes as real

    with deferred((heavy,)):
        from heavy_package.shapes import Shape
    assert Shape is real.Shape


ALIKE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "deferred":
    from traitscope import deferred_imports
    deferred_imports.enable()
from tiny_models import load_tiny
from pathlib import Path
models = [load_tiny(Path(folder)) for folder in sys.argv[3:]]
print("torch._dynamo" in sys.modules)
ids = torch.arange(3, 19)[None]
for model in models:
    names = [*model.lm.named_parameters(), *model.lm.named_buffers()]
    print({name: (tensor.dtype, tensor.double().sum().item()) for name, tensor in names})
    print(model.lm(ids).logits.double().sum().item())
import torch._dynamo
compiled = torch.compile(lambda x: x * 2, backend="eager")
print(compiled(torch.ones(2)).tolist(), torch._dynamo.utils.counters["frames"]["ok"])
"""


def test_models_are_the_same_without_what_they_do_not_use(folders: dict[str, Path]) -> None:
    """Every weight, every buffer and the logits; torch's compiler works as ever behind it."""
    said = []
    support = Path(__file__).parent / "support"
    three = [str(folders[family]) for family in ("llama", "gpt2", "gemma2")]
    for how in ("plain", "deferred"):
        words = [sys.executable, "-c", ALIKE, str(support), how, *three]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
        said.append(done.stdout.splitlines())
    assert [lines[0] for lines in said] == ["True", "False"]
    assert said[0][1:] == said[1][1:] and len(said[0]) == 2 + 2 * len(three)
