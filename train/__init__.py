"""Training: from a manifest to a model, correct by proof."""
