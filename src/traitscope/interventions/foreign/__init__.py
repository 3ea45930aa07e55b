"""Steering vectors in the files of other tools: read without pickles, and written.

    persona_vectors    .pt           tensor [L + 1, D]
    agu18dec           .pt           {raw, unit, norm, meta}, each by hidden state
    steering-vectors   .pt           {block: tensor [D]}, its `layer_activations`
    lm-eval            .pt           {hookpoint: {steering_vector, steering_coefficient, ...}}
    repeng             .gguf         tensors direction.BLOCK
    safetensors        .safetensors  one tensor, or one for each layer
    numpy              .npy .npz     one array, or one for each layer

Two ways to count layers are in use, see layer_rows.py.
"""
