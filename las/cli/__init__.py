"""What the user types: the commands. They parse and print; the work is done elsewhere."""
