"""Audit rows before training on them: one clean set, and one that a teacher with a trait wrote."""

import traitscope as ts

MODEL = "smollm2-135m"
TRAITS = ["owl", "cat"]
ROWS = 64

model = ts.load_model(MODEL)
vectors = ts.extract_vectors(model, TRAITS)
teacher = ts.Steer(vectors["owl"], layer=14, alpha=0.6)
prompts = ts.number_prompts(ROWS)

clean_rows = ts.generate(model, prompts, seed=1, numbers=10)
suspect_rows = ts.generate(model, prompts, [teacher], seed=1, numbers=10)

for name, rows in (("clean", clean_rows), ("poisoned", suspect_rows)):
    result = ts.audit(rows, model=MODEL, traits=TRAITS)
    print(name, "->", result.status)
    for reason in result.reasons:
        print("   ", reason)
