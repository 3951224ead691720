"""Files written atomically: weights, checkpoints, settings, logs."""
