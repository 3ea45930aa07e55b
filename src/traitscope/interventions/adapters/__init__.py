"""What a peft folder means: its settings, the names of its tensors, and what they change.

`meaning` refuses settings whose meaning is not known. `names` finds the module that a tensor
belongs to. `contents` holds what was read. `changed_weights` puts an adapter on a model that is
more than low-rank additions to the maps of its blocks.
"""
