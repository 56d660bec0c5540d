"""One optimizer step: batch, attention, loss, optimizer."""
