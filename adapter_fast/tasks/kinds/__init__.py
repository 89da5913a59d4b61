"""One file a kind of task: how its data is read and encoded, what model it takes, and how that is scored."""
