"""What makes a teacher or a student out of a base model.

`intervention` has the kinds of interventions as values, `applied` puts them on a model, and
`short_form` reads and writes them as texts. `vector` has the vectors that steer. Students are LoRA
adapters (`lora`, `peft_folder`, `partial_lora`, `multi_lora`, `rotated_lora`) or full weights
(`full_weights`). `hooks` defines layer and position, and `pass_state` says what hooks and layers
know about the pass that is running.
"""
