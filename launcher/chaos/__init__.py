"""`launch chaos`: beats a twin of an experiment with real blows, and compares it with another twin that was left in peace."""
