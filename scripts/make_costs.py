"""Writes docs/costs.md: what every study takes at full size with a model of the papers' size.
python scripts/make_costs.py"""

from pathlib import Path

from traitscope.studies import protocol
from traitscope.workflow import standard_nodes, status

PAGE = Path(__file__).parents[1] / "docs" / "costs.md"
MODEL, BLOCKS, PARAMETERS = "Qwen2.5-7B-Instruct", 28, 7.6e9
RATE = 8e14
DEVICE = "one H200"


def page() -> str:
    """The page."""
    lines = [
        "# What the full size costs",
        "",
        (
            f"Hours of {DEVICE} for every study at full size with {MODEL} ({PARAMETERS:.2g}"
            f" parameters, {BLOCKS} blocks), as"
        ),
        (
            f"`traitscope study plan NAME --size full --blocks {BLOCKS} --parameters {PARAMETERS:g}"
            f" --rate {RATE:g}` prints them: 2 FLOP a parameter and token of a"
        ),
        (
            f"forward pass, 2.5 times that for a token that is trained on, at {status.SHARE:.0%} of"
            f" matrix products at {RATE:g} FLOP/s. The rate is the device's data sheet"
        ),
        (
            "less a fifth and was not measured by us; answers that are sampled token by token reach"
            " less of it, so take these as lower bounds. With the model"
        ),
        (
            "at hand `plan` needs none of these numbers, and after the first stages it goes by what"
            " they took."
        ),
        "",
        "| study | stages | students | hours |",
        "| --- | --- | --- | --- |",
    ]
    common, total = {"model": "smollm2-135m", "device": "cuda", "dtype": "bf16"}, 0.0
    for name in protocol.names():
        study = protocol.load(name)
        nodes = study.nodes(standard_nodes.at_depth(study.SIZES["full"], BLOCKS), common)
        hours = status.usual(nodes, PARAMETERS, RATE) / 3600
        total += hours
        lines.append(
            f"| [{name}](studies/{name}.md) | {len(nodes)} |"
            f" {sum(node.verb == 'train' for node in nodes)} | {hours:.1f} |"
        )
    return "\n".join([*lines, f"| all | | | {total:.0f} |"]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
