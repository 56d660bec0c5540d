"""From conversations to tokens and a proven loss mask."""
