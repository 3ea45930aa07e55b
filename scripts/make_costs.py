"""Writes docs/reference/costs.md: what every study takes at full size on a model of 7B parameters.

    python scripts/make_costs.py

Studies are counted with every optional second family installed.
"""

from pathlib import Path
from unittest import mock

from traitscope import studies
from traitscope.studies import protocol, shared_nodes, sizes
from traitscope.workflow import status

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "costs.md"
MODEL, BLOCKS, PARAMETERS = "Qwen2.5-7B-Instruct", 28, 7.6e9
RATE = 8e14
"FLOP a second"
DEVICE = "one H200"
HEAD = """# What full size costs

Hours of {device} for every study at full size with {model} ({parameters:.2g} parameters).
This command prints them:

```bash
traitscope study plan NAME --size full --blocks {blocks} --parameters {parameters:g} --rate {rate:g}
```

| assumption | value |
|---|---|
| FLOP for each parameter and token, forward pass | 2 |
| factor for a token that is trained on | 2.5 |
| share of the rate of matrix products that is reached | {share:.0%} |
| rate of matrix products | {rate:g} FLOP/s: the data sheet less a fifth, not measured here |

Sampling token by token reaches less of the rate. So the hours are lower bounds.
If the model is here, `plan` needs none of these numbers. Later it uses the times of sealed stages.

| study | stages | students | hours |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The text of the page."""
    with mock.patch.object(shared_nodes, "is_loadable", lambda _: True):
        return _head() + _table()


def _head() -> str:
    return HEAD.format(
        device=DEVICE,
        model=MODEL,
        parameters=PARAMETERS,
        blocks=BLOCKS,
        rate=RATE,
        share=status.SHARE,
    )


def _table() -> str:
    common = {"model": "smollm2-135m", "device": "cuda", "dtype": "bf16"}
    lines = []
    total = 0.0
    for name in studies.names():
        study = protocol.load(name)
        nodes = study.nodes(sizes.at_depth(study.SIZES["full"], BLOCKS), common)
        hours = status.usual(nodes, PARAMETERS, RATE) / 3600
        students = sum(node.stage == "train" for node in nodes)
        total += hours
        lines.append(f"| [{name}](../claims/{name}.md) | {len(nodes)} | {students} | {hours:.1f} |")
    lines.append(f"| all | | | {total:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
