"""What an audit says one would do next."""

import shlex
from pathlib import Path

from traitscope.auditing.command import run
from traitscope.config import AuditConfig
from traitscope.config.common import Output


def test_without_spike_ins_comes_the_same_audit_with_them() -> None:
    """The line can be pasted: read again, it has the settings of the audit but for one."""
    config = AuditConfig(data=Path("a {b}.jsonl"), traits=("owl",), rows=64, spike_ins=False)
    step = run._next_step(config, Output(root=Path("mine")), {"rows": 64, "status": "insufficient"})
    words = shlex.split(step.format(run="RUN"))
    assert words[:2] == ["traitscope", "audit"] and "--no-spike-ins" not in words
    assert "a {b}.jsonl" in words and words[words.index("--root") + 1] == "mine"
    told = run._next_step(config, Output(), {"rows": 31, "status": "insufficient"})
    assert told.startswith("audit 32 rows or more")
