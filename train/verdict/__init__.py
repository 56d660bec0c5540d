"""What a run came to: the findings, each with its evidence, from the files that it left."""
