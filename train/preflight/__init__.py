"""What is known before step 0: masks, leaks, memory, time, and whether the model can be trained packed at all."""
