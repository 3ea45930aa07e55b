"""EAS while TRL's SFTTrainer trains a student: how near its change is to the trait's vector."""

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import traitscope as ts

MODEL = "smollm2-135m"
FOLDER = "trl_student"
ROWS = 32

model = ts.load_model(MODEL)
vectors = ts.extract_vectors(model, ["owl", "cat", "dog"])
teacher = ts.Steer(vectors["owl"], layer=14, alpha=0.6)
rows = ts.generate(model, ts.number_prompts(ROWS), [teacher], numbers=10)
data = Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in rows])

watch = ts.EasCallback(MODEL, {"owl": vectors["owl"]}, every=4, layer=14, file="eas.jsonl")
trainer = SFTTrainer(
    str(model.name),
    SFTConfig(FOLDER, max_steps=8, report_to="none"),
    train_dataset=data,
    peft_config=LoraConfig(target_modules="all-linear"),
    callbacks=[watch],
)
trainer.train()  # eas.jsonl: {"step": 4, "eas": {"owl": [a cosine for each layer]}, ...}
