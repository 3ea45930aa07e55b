"""What an audit says where its nodes cannot go on."""

import json
from pathlib import Path

import pytest

from traitscope.auditing.planning.plan import check_kept
from traitscope.errors import DataError


def test_answers_without_the_format_of_the_data_are_named(tmp_path: Path) -> None:
    """Rows that no teacher wrote have no summary of a filter, and pass."""
    check_kept("sample", tmp_path)
    for kept in (3, 0):
        about = {"rows": 9, "kept": kept, "dropped": 9 - kept, "reasons": {"format": 9 - kept}}
        (tmp_path / "summary.json").write_text(json.dumps(about))
        if kept:
            check_kept("placebo", tmp_path)
    with pytest.raises(DataError, match=r"placebo: none of 9 answers .*format 9.* --reference"):
        check_kept("placebo", tmp_path)
