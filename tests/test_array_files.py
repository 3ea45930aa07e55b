"""Arrays and tensors in files: what was written is read, and nothing else is."""

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from traitscope import array_files
from traitscope.errors import ModelError, StoreError
from traitscope.models.identity.finding import n_weights
from traitscope.models.identity.tensors import read_weights

ROWS = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


class Trap:
    """A pickle that says when it is loaded."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        return print, ("a pickle was loaded",)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def zip_of(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


OBJECTS = np.array([Trap()], dtype=object)
BAD: dict[str, bytes] = {
    "empty": b"",
    "text": b"not an array\n",
    "pickle": pickle.dumps(Trap()),
    "objects": npy(OBJECTS),
    "objects in an archive": npz(a=OBJECTS),
    "header that is cut": npy(ROWS)[:40],
    "numbers that are cut": npy(ROWS)[:-5],
    "header that is no Python": npy(ROWS).replace(b"'descr'", b"'descr'*"),
    "shape without end": npy(ROWS).replace(b"(4, 3, 2), }", b"(4, 3, 9**9), }"),
    "archive that is cut": npz(a=ROWS)[:-30],
    "archive with a flipped byte": npz(a=ROWS)[:150] + b"\xff" + npz(a=ROWS)[151:],
    "archive of text": zip_of("a.npy", b"not an array"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_array_is_named(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(BAD[case])
    for read in (
        lambda: array_files.read_array(file),
        lambda: array_files.read_array(file, mapped=True),
        lambda: array_files.read_arrays(file, ("a",)),
    ):
        with pytest.raises(StoreError, match=r"a\.npy cannot be read \(.*\); expected an array as"):
            read()
    assert "a pickle was loaded" not in capsys.readouterr().out


def test_missing_files_and_names(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a\.npy cannot be read .*restore it, or move"):
        array_files.read_array(tmp_path / "a.npy")
    array_files.write_arrays(tmp_path / "a.npz", {"a": ROWS})
    with pytest.raises(StoreError, match=r"a\.npz cannot be read .*b is not a file"):
        array_files.read_arrays(tmp_path / "a.npz", ("a", "b"))
    with pytest.raises(StoreError, match="the magic string is not correct"):
        array_files.read_array(tmp_path / "a.npz")


def test_a_file_of_tensors_that_was_not_fetched(tiny_folder: Path, tmp_path: Path) -> None:
    """A repository without its large files holds pointers in their places."""
    shutil.copytree(tiny_folder, tmp_path / "m")
    pointer = tmp_path / "m" / "model.safetensors"
    pointer.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 123456789\n"
    )
    for read, error in (
        (array_files.read_tensors, ValueError),
        (array_files.read_rows, ValueError),
        (lambda file: n_weights(file.parent), ModelError),
        (read_weights, ModelError),
    ):
        with pytest.raises(error, match="a pointer of Git LFS.*git lfs pull"):
            read(pointer)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    array_files.write_array(tmp_path / "a.npy", ROWS)
    assert (tmp_path / "a.npy").read_bytes() == npy(ROWS)
    for mapped in (False, True):
        assert np.array_equal(array_files.read_array(tmp_path / "a.npy", mapped), ROWS)
    array_files.write_arrays(tmp_path / "b.npz", {"a": ROWS, "b": ROWS[0]})
    assert (tmp_path / "b.npz").read_bytes() == npz(a=ROWS, b=ROWS[0])
    assert list(array_files.read_arrays(tmp_path / "b.npz")) == ["a", "b"]
    assert list(array_files.read_arrays(tmp_path / "b.npz", ("b",))) == ["b"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_are_read_as_torch_reads_them(dtype: torch.dtype, tmp_path: Path) -> None:
    """To the bit, with torch's own reading as the oracle; so are the refusals."""
    file = tmp_path / "a.safetensors"
    written = {"a": torch.randn(3, 5).to(dtype), "empty": torch.zeros(0, 4, dtype=dtype)}
    save_file(written, file)
    read = array_files.read_rows(file)
    for name, tensor in array_files.read_tensors(file).items():
        assert read[name].dtype == np.float32
        assert np.array_equal(read[name], tensor.float().numpy())
    for wrong in (torch.zeros(2).int(), torch.tensor([1.0, torch.nan]).to(dtype)):
        save_file({"a": wrong}, file)
        with pytest.raises(ValueError, match="a in a.safetensors") as ours:
            array_files.read_rows(file)
        with pytest.raises(ValueError, match="a in a.safetensors") as theirs:
            array_files.read_tensors(file)
        assert str(ours.value) == str(theirs.value)


def test_rows_are_written_in_parts_and_in_one_step(tmp_path: Path) -> None:
    """The bytes are those of numpy. What fails in between leaves the old file, and no other."""
    file = tmp_path / "a.npy"

    def parts(broken: bool):
        yield ROWS[:1]
        if broken:
            raise StoreError("planned; go on")
        yield ROWS[1:]

    array_files.write_rows(file, ROWS.shape, ROWS.dtype, parts(False))
    assert file.read_bytes() == npy(ROWS)
    with pytest.raises(StoreError, match="planned"):
        array_files.write_rows(file, ROWS.shape, ROWS.dtype, parts(True))
    assert file.read_bytes() == npy(ROWS)
    assert list(tmp_path.iterdir()) == [file]


def test_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle=False"):
        array_files.write_array(tmp_path / "a.npy", OBJECTS)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        array_files.write_arrays(tmp_path / "a.npz", {"a": OBJECTS})
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_package_reads_arrays_by_itself() -> None:
    """One place reads them, without pickles; nothing writes through a map, which a full disk turns
    into the end of the process."""
    source = Path(array_files.__file__).parent
    places = []
    for path in sorted(source.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for name in ("np.load(", "np.save(", "open_memmap", "np.memmap", "allow_pickle=True"):
            if name in text and path.name != "array_files.py":
                places.append(f"{path}: {name}")
    assert places == []
