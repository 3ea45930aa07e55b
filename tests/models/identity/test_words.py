"""The words of a command line that name a model: those that are not the usual ones."""

from traitscope.models.hardware import default_dtype, resolve_device
from traitscope.models.identity.words import model_words


def test_words_of_settings() -> None:
    automatic = {"device": resolve_device("auto"), "dtype": default_dtype(resolve_device("auto"))}
    assert model_words({"model": "smollm2-135m", "template": [], **automatic}) == []
    other = "fp32" if automatic["dtype"] == "bf16" else "bf16"
    given = {
        "model": "a model",
        "dtype": other,
        "template": ("a=1", "b=2"),
        "control_tokens": "token",
        "same_as": "0" * 16,
        "context": "Be kind.",
        "seed": 3,
    }
    words = ["--model", "a model", "--dtype", other, "--template", "a=1", "b=2"]
    words += ["--control-tokens", "token", "--same-as", "0" * 16]
    assert model_words(given) == [*words, "--context", "Be kind."]
    assert model_words(given, with_context=False) == words
    assert model_words({"context": "@none"}, with_context=False) == ["--context", "@none"]
    assert model_words({"context": ""}) == ["--context", ""]
