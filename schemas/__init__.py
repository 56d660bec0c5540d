"""What every part agrees on: records, reasons, manifests, configuration, errors, and how to read a dataset version."""
