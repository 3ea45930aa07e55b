"""EAS while TRL's SFTTrainer trains a student: how near its change is to the trait's vector."""

import json
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import traitscope as ts
from traitscope.models.loading import find_model

MODEL = "smollm2-135m"
FOLDER, FILE = "trl_student", Path("eas.jsonl")
ROWS = 32
LAYER = 14

model = ts.load_model(MODEL)
vectors = ts.extract_vectors(model, ["owl", "cat", "dog"])
teacher = ts.Steer(vectors["owl"], layer=LAYER, alpha=0.6)
rows = ts.generate(model, ts.number_prompts(ROWS), [teacher], numbers=10)
data = Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in rows])

watch = ts.EasCallback(MODEL, {"owl": vectors["owl"]}, every=4, layer=LAYER, file=FILE)
trainer = SFTTrainer(
    str(find_model(MODEL)),  # the folder that the embedded model was written to
    SFTConfig(FOLDER, max_steps=8, report_to="none", bf16=False),  # bf16 needs a GPU in TRL
    train_dataset=data,
    peft_config=LoraConfig(target_modules="all-linear"),
    callbacks=[watch],
)
trainer.train()
for line in FILE.read_text().splitlines():
    row = json.loads(line)  # {"step": 4, "eas": {"owl": [a cosine for each layer]}, ...}
    print(f"step {row['step']}: EAS at block {LAYER} {row['eas']['owl'][LAYER]:+.3f}")
