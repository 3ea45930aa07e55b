"""A trait of your own: does its prompt give a model the trait, and does one vector do the same?"""

from pathlib import Path

import traitscope as ts

MODEL = "smollm2-135m"
TRAIT_FILE = Path(__file__).with_name("own_trait.yaml")
OTHERS = ["cat", "dog", "owl"]
LAYER, STRENGTH = 14, 0.6

model = ts.load_model(MODEL)
trait = ts.load_trait(TRAIT_FILE)
vectors = ts.extract_vectors(model, [trait, *OTHERS])

base = ts.measure(model, trait)
prompted = ts.measure(model, trait, [ts.SystemPrompt(trait.teacher_prompt)])
steered = ts.measure(model, trait, [ts.Steer(vectors[trait.name], layer=LAYER, alpha=STRENGTH)])

print("prompted minus base:", prompted - base)
print("steered minus base:", steered - base)
