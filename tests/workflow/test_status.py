"""What is gathered of the stages of a study."""

import json
from pathlib import Path

from traitscope.workflow.status import numbers_inside


def test_numbers_inside_of_a_summary_are_called_by_their_place(tmp_path: Path) -> None:
    """Numbers at the top stand in the other table; truths and texts are no numbers."""
    inside = {"owl": {"alignment": [0.5, -1], "is_own": True, "unit": "cosine"}}
    (tmp_path / "summary.json").write_text(json.dumps({"rows": 3, "vectors": inside}))
    found = {"vectors.owl.alignment.0": 0.5, "vectors.owl.alignment.1": -1}
    assert numbers_inside(tmp_path) == found
    assert numbers_inside(tmp_path / "none") == {}
