"""Files that come with the package: bundled traits, questions, prompts and word lists."""

from pathlib import Path

BUNDLED = Path(__file__).parent / "bundled"


def bundled_file(*parts: str) -> Path:
    """Return the path of a bundled file or folder, such as `bundled_file("traits", "owl.yaml")`."""
    return BUNDLED.joinpath(*parts)
