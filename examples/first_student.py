"""A student of number data picks up a trait that the data never mention, with its control.

The teacher is the base model with a steering vector for *cat*. The teacher and the unmodified base
write lists of numbers for the same prompts. One student trains on the teacher's lists, one control
student on the base's lists. Both then answer questions about animals.

It takes about four minutes on two CPU cores. One pair of students is an anecdote:
repeat it over SEEDS for an interval over seeds.
"""

import traitscope as ts

MODEL = "smollm2-135m"
TRAIT = "cat"
OTHERS = ["dog", "owl", "fox"]
LAYER, STRENGTH = 14, 0.6
ROWS = 24
RECIPE = ts.Recipe(epochs=2, batch_size=4, lr=1e-3)
SEEDS = [1, 2]

model = ts.load_model(MODEL)
trait = ts.load_trait(TRAIT)

# The trait's vector: the mean over all traits is subtracted, so that the trait is left.
vectors = ts.extract_vectors(model, [TRAIT, *OTHERS])
teacher = ts.Steer(vectors[TRAIT], layer=LAYER, alpha=STRENGTH)

treated, control, cosines = [], [], []
for seed in SEEDS:
    prompts = ts.number_prompts(ROWS, seed=seed)

    # Teacher and base answer the same prompts with the same random numbers.
    teacher_rows = ts.generate(model, prompts, [teacher], seed=seed, numbers=10)
    base_rows = ts.generate(model, prompts, seed=seed, numbers=10)
    teacher_rows = ts.keep_numbers(teacher_rows)
    base_rows = ts.keep_numbers(base_rows)
    print("a row of the teacher:", teacher_rows[0].completion)

    student = ts.train(model, teacher_rows, RECIPE, seed=seed)
    control_student = ts.train(model, base_rows, RECIPE, seed=seed)

    treated.append(ts.measure(model, trait, [student]))
    control.append(ts.measure(model, trait, [control_student]))

    # What only the teacher's rows changed, against the teacher's vector.
    change = student.vector(model, prompts) - control_student.vector(model, prompts)
    cosines.append(ts.eas(change, vectors[TRAIT])[LAYER])

# Treated minus control, with an interval over seeds.
print(ts.compare(treated, control))
for seed, cosine in zip(SEEDS, cosines, strict=True):
    print(f"seed {seed}: cosine of (treated - control) with the vector {cosine:+.3f}")
