"""The model: loaded, made trainable, merged."""
