"""What a model is worth: losses, answers, difficulty."""
