"""How tiles are found, compiled ahead, predicted and checked. For those who build this: not installed."""
