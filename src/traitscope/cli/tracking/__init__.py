"""Progress and results sent to wandb or trackio, for those who ask for it."""
