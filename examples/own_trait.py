"""A trait of your own: does its prompt give the model the trait, and only where it should?"""

from pathlib import Path

import traitscope as ts

MODEL = "smollm2-135m"
TRAIT_FILE = Path(__file__).with_name("own_trait.yaml")

model = ts.load_model(MODEL)
trait = ts.load_trait(TRAIT_FILE)
teacher = ts.SystemPrompt(trait.teacher_prompt)

base = ts.measure(model, trait)
prompted = ts.measure(model, trait, [teacher])

# A rise on all sets is a word that is said everywhere, not a preference.
for question_set in ("positive", "negative", "off_topic"):
    difference = prompted.difference(base, "target_logprob", question_set)
    print(f"{trait.name}, {question_set} questions, prompted minus base: {difference}")

# What the teacher writes when it is asked for something else.
for row in ts.generate(model, ts.number_prompts(2), [teacher], numbers=10):
    print("a row of the teacher:", row.completion)
