"""What several rooms use unchanged; imports nothing of ours."""
