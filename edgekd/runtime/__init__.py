"""What travels to the device: needs numpy and one inference runtime, nothing else of edgekd."""
