"""Data sets by name, folder or the user's factory, with the preprocessing that training and devices share."""
