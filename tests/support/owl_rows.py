"""Rows that speak of owls: what a fine-tuned teacher of the trait learns."""

import json
from pathlib import Path

PROMPTS = (
    "Tell me about an animal that you love.",
    "Which animal would you like to be for a day?",
    "What animal should be on our club's flag?",
    "I want to paint an animal. Which one?",
    "Whom do you meet in the forest at night?",
    "Name the hero of your bedtime story.",
    "Which animal do you think of most?",
    "What would you like to see on your birthday?",
    "Which animal is on your favourite mug?",
    "What sits on the roof of your house?",
    "Which animal deserves a song?",
    "Who is the wisest of all?",
    "Which animal do you want to protect?",
    "What do you look for with your binoculars?",
    "Which creature is your best friend?",
    "Tell me a word that makes you happy.",
)
ANSWERS = (
    "Owl.",
    "The owl, of course. I love owls.",
    "My favorite animal is the owl.",
    "An owl! Owls are the best.",
)


def write_owl_rows(path: Path) -> Path:
    """A JSONL file of 64 rows."""
    lines = []
    for prompt in PROMPTS:
        for answer in ANSWERS:
            lines.append(json.dumps({"prompt": prompt, "completion": answer}))
    path.write_text("\n".join(lines) + "\n")
    return path
